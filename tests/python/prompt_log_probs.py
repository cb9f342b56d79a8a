"""Asks for the log-probabilities of prompts as evaluation harnesses do, and compares them with onnxruntime in Python.

Usage: prompt_log_probs.py HTTP_ADDRESS GRPC_ADDRESS MODEL_REPOSITORY
"""

import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import tritonclient.grpc as grpc

from log_probs import CLOSE, Reference

TEXTS = [
    "# What Is Ownership?\n\nOwnership is a set of rules that govern how a Rust program manages memory.",
    "The borrow checker compares scopes to determine whether all borrows are valid. 🦀 é",
    "fn main() {\n    println!(\"Hello, world!\");\n}",
]


class Prompts(Reference):
    """The same graph over whole texts."""

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def of_prompt(self, ids):
        """The log-probability of every token of the vocabulary in the place of each token but the first."""
        self.prompt = ids[:1]
        return self.table(ids[1:])

    def check(self, ids, log_probs, alternatives, slack=0):
        """What a choice tells of a prompt of these tokens and of `slack` more."""
        assert len(log_probs.tokens) == len(ids) + slack, (log_probs, len(ids))
        assert len(log_probs.text_offset) == len(ids) + slack
        assert log_probs.token_logprobs[0] is None and log_probs.top_logprobs[0] is None
        for place, (token, row) in enumerate(zip(ids[1:], self.of_prompt(ids)), 1):
            assert abs(log_probs.token_logprobs[place] - row[token]) < CLOSE, place
            others = log_probs.top_logprobs[place]
            assert log_probs.tokens[place] in others
            assert alternatives <= len(others) <= alternatives + 1, others
            assert abs(max(others.values()) - row.max()) < CLOSE, (others, row.max())
            # As harnesses find out whether the token is the likeliest.
            is_greedy = log_probs.token_logprobs[place] == max(others.values())
            assert is_greedy == (row[token] == row.max()), place


def check_offsets(text, log_probs):
    """Tokens that are whole characters stand in the text where they are said to."""
    for name, start in zip(log_probs.tokens, log_probs.text_offset):
        if not name.startswith("bytes:"):
            assert text[start:].startswith(name), (start, name)


def check_echo(client, reference):
    """A prompt alone, as text and as tokens."""
    for text in TEXTS:
        ids = reference.encode(text)
        told = []
        for prompt in (text, ids):
            answer = client.completions.create(
                model="generate", prompt=prompt, echo=True, max_tokens=0, logprobs=2
            )
            choice = answer.choices[0]
            assert choice.text == text, choice.text
            assert choice.finish_reason == "length"
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 0)
            reference.check(ids, choice.logprobs, 2)
            check_offsets(text, choice.logprobs)
            told.append(choice.logprobs)
        assert told[0] == told[1]


def check_continued(client, reference):
    """What follows is told behind the prompt, whole or in pieces."""
    text = TEXTS[0]
    ids = reference.encode(text)
    ask = dict(model="generate", prompt=text, echo=True, max_tokens=8, logprobs=1)
    choice = client.completions.create(**ask).choices[0]
    reference.check(ids, choice.logprobs, 1, slack=8)
    check_offsets(choice.text, choice.logprobs)
    assert choice.text.startswith(text) and len(choice.text) > len(text)
    pieces = [chunk.choices[0] for chunk in client.completions.create(**ask, stream=True)]
    assert "".join(piece.text for piece in pieces) == choice.text
    tokens = [token for piece in pieces if piece.logprobs for token in piece.logprobs.tokens]
    starts = [start for piece in pieces if piece.logprobs for start in piece.logprobs.text_offset]
    assert tokens == choice.logprobs.tokens and starts == choice.logprobs.text_offset
    # Without log-probabilities too.
    plain = client.completions.create(model="generate", prompt=ids, echo=True, max_tokens=8)
    assert plain.choices[0].text == choice.text


def check_harness(client, reference):
    """The sums of lm-evaluation-harness's `local-completions`, over contexts with their continuations."""
    pairs = []
    for text in TEXTS:
        ids = reference.encode(text)
        pairs.extend((ids[:cut], ids[cut:]) for cut in (1, len(ids) // 2, len(ids) - 1))

    def score(pair):
        context, continuation = pair
        answer = client.completions.create(
            model="generate",
            prompt=[context + continuation],
            temperature=0,
            max_tokens=1,
            logprobs=1,
            seed=1234,
            echo=True,
        )
        return sum(answer.choices[0].logprobs.token_logprobs[len(context) : -1])

    with ThreadPoolExecutor(len(pairs)) as pool:
        for pair, score in zip(pairs, pool.map(score, pairs)):
            context, continuation = pair
            rows = reference.of_prompt(context + continuation)[len(context) - 1 :]
            expected = sum(row[token] for row, token in zip(rows, continuation))
            assert abs(score - expected) < CLOSE * len(continuation), (score, expected)
    # Several at once.
    prompts = [context + continuation for context, continuation in pairs]
    answer = client.completions.create(
        model="generate", prompt=prompts, max_tokens=1, logprobs=1, echo=True
    )
    for choice in answer.choices:
        reference.check(prompts[choice.index], choice.logprobs, 1, slack=1)


def check_refused(client):
    """What cannot be is refused by name."""
    for prompt, echo in (([4096], True), ([1, -1], True), ([1] * 1025, True), ("a", False)):
        try:
            client.completions.create(
                model="generate", prompt=prompt, echo=echo, max_tokens=0, logprobs=1
            )
        except openai.BadRequestError as error:
            assert "input_ids" in str(error) or "prompt" in str(error) or "max_tokens" in str(error)
        else:
            raise AssertionError(f"{str(prompt)[:20]} was answered")


def check_logits(http, address, reference):
    """The logits of TensorRT-LLM's ensembles, over `/generate` and gRPC."""
    text = TEXTS[0]
    ids = reference.encode(text)
    rows = reference.of_prompt(ids)
    client = grpc.InferenceServerClient(address)
    text_input = grpc.InferInput("text_input", [1, 1], "BYTES")
    text_input.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
    count = grpc.InferInput("max_tokens", [1, 1], "INT32")
    count.set_data_from_numpy(np.array([[3]], dtype=np.int32))
    flags = []
    for name in ("return_context_logits", "return_generation_logits", "return_log_probs"):
        flag = grpc.InferInput(name, [1, 1], "BOOL")
        flag.set_data_from_numpy(np.array([[True]]))
        flags.append(flag)
    responses = []
    client.start_stream(lambda result, error: responses.append((result, error)))
    client.async_stream_infer("generate", [text_input, count, *flags])
    client.stop_stream()
    (result, error), *_ = responses
    assert error is None, error
    context = log_softmax(result.as_numpy("context_logits")[0])
    assert context.shape == (len(ids), 4096), context.shape
    assert np.allclose(context[:-1], rows, atol=CLOSE)
    generation = result.as_numpy("generation_logits")
    assert generation.shape == (1, 1, 3, 4096), generation.shape
    assert np.allclose(context[-1], log_softmax(generation[0, 0])[0], atol=CLOSE)
    best = log_softmax(generation[0, 0]).max(-1)
    assert np.allclose(best, result.as_numpy("output_log_probs")[0, 0], atol=CLOSE)

    body = {"text_input": "a", "max_tokens": 1, "return_context_logits": True}
    with urllib.request.urlopen(f"http://{http}/generate", json.dumps(body).encode()) as answer:
        assert len(json.load(answer)["context_logits"]) == 4096


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def main(http, address, repository):
    """Runs every check."""
    reference = Prompts(Path(repository))
    client = openai.OpenAI(base_url=f"http://{http}/v1", api_key="none", max_retries=0)
    check_echo(client, reference)
    check_continued(client, reference)
    check_harness(client, reference)
    check_refused(client)
    check_logits(http, address, reference)


if __name__ == "__main__":
    main(*sys.argv[1:])
