"""Compares the log-probabilities of every face with a softmax over the logits that onnxruntime gives in Python.

Usage: log_probs.py HTTP_ADDRESS GRPC_ADDRESS MODEL_REPOSITORY
"""

import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import openai
import tritonclient.grpc as grpc
from tokenizers import Tokenizer

PROMPT = "# What Is Ownership?\n\nOwnership is"
COUNT = 24
CLOSE = 1e-3


class Reference:
    """The graph and the tokenizer of `ferris`, used directly."""

    def __init__(self, repository):
        folder = repository / "ferris/1"
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        self.prompt = self.tokenizer.encode(PROMPT, add_special_tokens=False).ids

    def table(self, tokens):
        """The log-probability of every token of the vocabulary in the place of each of `tokens`."""
        ids = np.array([self.prompt + tokens[:-1]], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for tensor in self.session.get_inputs():
            if tensor.name.startswith("past_key_values"):
                feeds[tensor.name] = np.zeros((1, tensor.shape[1], 0, tensor.shape[3]), np.float32)
        logits = self.session.run(["logits"], feeds)[0][0, len(self.prompt) - 1 :]
        logits = logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def bytes_of(self, token):
        """A token as the bytes that it adds, by the table of byte-level tokenizers."""
        return bytes(BYTE_OF[symbol] for symbol in self.tokenizer.id_to_token(token))

    def check(self, told, alternatives):
        """`told`: each token's bytes, its number, and those of the others in its place."""
        assert len(told) == COUNT, len(told)
        by_bytes = {}
        for token in range(self.tokenizer.get_vocab_size()):
            name = self.tokenizer.id_to_token(token)
            if all(symbol in BYTE_OF for symbol in name):
                by_bytes.setdefault(self.bytes_of(token), token)
        tokens = [by_bytes[token] for token, *_ in told]
        for (_, value, others), row in zip(told, self.table(tokens)):
            assert abs(value - row[tokens.pop(0)]) < CLOSE, (value, row.max())
            best = np.sort(row)[::-1][:alternatives]
            values = sorted((value for _, value in others), reverse=True)[:alternatives]
            assert np.allclose(values, best, atol=CLOSE), (values, best)
            for other, value in others:
                if other in by_bytes:
                    assert abs(row[by_bytes[other]] - value) < CLOSE, other


def byte_table():
    """The symbols that stand for bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in plain]
    table.update({chr(256 + place): byte for place, byte in enumerate(rest)})
    return table


BYTE_OF = byte_table()


def of_completions(client, stream):
    """What `/v1/completions` tells."""
    answer = client.completions.create(
        model="generate", prompt=PROMPT, max_tokens=COUNT, logprobs=3, stream=stream
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    text = "".join(choice.text for choice in choices)
    told = []
    for choice in choices:
        log_probs = choice.logprobs
        if log_probs is None:
            continue
        for name, value, others, start in zip(
            log_probs.tokens, log_probs.token_logprobs, log_probs.top_logprobs, log_probs.text_offset
        ):
            assert text[start:].startswith(name), (text, start, name)
            assert name in others and 3 <= len(others) <= 4, others
            told.append((name.encode(), value, [(key.encode(), v) for key, v in others.items()]))
    assert b"".join(token for token, *_ in told) == text.encode()
    return text, told


def of_chat(client, stream):
    """What `/v1/chat/completions` tells."""
    answer = client.chat.completions.create(
        model="generate",
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=COUNT,
        logprobs=True,
        top_logprobs=5,
        stream=stream,
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    pieces = [(choice.delta if stream else choice.message).content or "" for choice in choices]
    told = []
    for choice, piece in zip(choices, pieces):
        if choice.logprobs is None:
            continue
        tokens = choice.logprobs.content
        assert "".join(token.token for token in tokens) == piece, (tokens, piece)
        for token in tokens:
            others = [(bytes(other.bytes), other.logprob) for other in token.top_logprobs]
            assert len(others) == 5
            told.append((bytes(token.bytes), token.logprob, others))
    return "".join(pieces), told


def check_stop(client):
    """Tokens behind the end at a stop word are not told; the one that it begins in is."""
    answer = client.completions.create(
        model="generate", prompt=PROMPT, max_tokens=COUNT, logprobs=0, stop=["emor"]
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    together = "".join(choice.logprobs.tokens)
    assert together.startswith(choice.text), choice
    assert not together[: -len(choice.logprobs.tokens[-1])].startswith(choice.text + "e"), choice


def check_broken(client, reference):
    """A token that is only a part of a character is told by its bytes."""
    part = reference.tokenizer.token_to_id(next(s for s, byte in BYTE_OF.items() if byte == 0xF0))
    answer = client.chat.completions.create(
        model="generate",
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=2,
        logprobs=True,
        logit_bias={str(part): 100},
    )
    choice = answer.choices[0]
    assert choice.message.content == "\N{REPLACEMENT CHARACTER}" * 2, choice
    assert [token.bytes for token in choice.logprobs.content] == [[0xF0], [0xF0]], choice
    assert [token.token for token in choice.logprobs.content] == ["\\xf0", "\\xf0"], choice


def check_triton(http, address, expected):
    """The tensors of TensorRT-LLM's ensembles, over `/generate` and ModelStreamInfer."""
    body = {"text_input": PROMPT, "max_tokens": COUNT, "return_log_probs": True}
    with urllib.request.urlopen(f"http://{http}/generate", json.dumps(body).encode()) as answer:
        answer = json.load(answer)
    assert np.allclose(answer["output_log_probs"], expected, atol=CLOSE), answer
    assert abs(answer["cum_log_probs"] - sum(expected)) < COUNT * CLOSE, answer

    client = grpc.InferenceServerClient(address)
    text = grpc.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[PROMPT.encode()]], dtype=np.object_))
    count = grpc.InferInput("max_tokens", [1, 1], "INT32")
    count.set_data_from_numpy(np.array([[COUNT]], dtype=np.int32))
    flags = []
    for name in ("return_log_probs", "stream"):
        flag = grpc.InferInput(name, [1, 1], "BOOL")
        flag.set_data_from_numpy(np.array([[True]]))
        flags.append(flag)
    responses = []
    client.start_stream(lambda result, error: responses.append((result, error)))
    client.async_stream_infer(
        "generate", [text, count, *flags], enable_empty_final_response=True
    )
    client.stop_stream()
    values, sums = [], []
    for result, error in responses:
        assert error is None, error
        found = result.as_numpy("output_log_probs")
        if found is not None:
            assert found.shape[:2] == (1, 1), found.shape
            values.extend(found[0, 0])
            sums.append(result.as_numpy("cum_log_probs")[0, 0])
    assert np.allclose(values, expected, atol=CLOSE), values
    assert abs(sums[-1] - sum(expected)) < COUNT * CLOSE and sums == sorted(sums, reverse=True)


def main(http, address, repository):
    """Runs every check."""
    reference = Reference(Path(repository))
    client = openai.OpenAI(base_url=f"http://{http}/v1", api_key="none", max_retries=0)
    texts = set()
    for stream in (False, True):
        text, told = of_completions(client, stream)
        reference.check(told, 3)
        texts.add(text)
        text, told = of_chat(client, stream)
        reference.check(told, 5)
        texts.add(text)
    assert len(texts) == 1, texts
    check_stop(client)
    check_broken(client, reference)
    check_triton(http, address, [value for _, value, _ in told])


if __name__ == "__main__":
    main(*sys.argv[1:])
