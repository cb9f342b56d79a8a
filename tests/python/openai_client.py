"""Exercises a whole system with OpenAI's own Python client, as it comes from PyPI.

Usage: openai_client.py HTTP_ADDRESS
"""

import asyncio
import functools
import json
import sys
import urllib.request
from pathlib import Path
from typing import Literal

import openai
import pydantic

REFERENCES = json.loads(
    (Path(__file__).parent.parent / "fixtures/ferris/reference.json").read_text()
)
FIRST = REFERENCES[0]


def generated(address, prompt, count):
    """What `/generate` says, which the references prove right."""
    body = json.dumps({"text_input": prompt, "max_tokens": count}).encode()
    with urllib.request.urlopen(f"http://{address}/generate", data=body) as answer:
        answer = json.load(answer)
    assert set(answer) == {"model_name", "model_version", "text_output"}, answer
    return answer["text_output"]


def check_completions(client):
    """Whole completions: texts, choices, the reason for the end, tokens."""
    for reference in REFERENCES:
        answer = client.completions.create(
            model="generate", prompt=reference["prompt"], max_tokens=64, temperature=0
        )
        choice = answer.choices[0]
        assert choice.text == reference["greedy_text"], (choice.text, reference)
        assert choice.finish_reason == "length", choice
        assert answer.usage.prompt_tokens == len(reference["input_ids"]), answer.usage
        assert answer.usage.completion_tokens == 64, answer.usage
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 64, answer.usage
    prompts = [reference["prompt"] for reference in REFERENCES[:2]]
    answer = client.completions.create(
        model="generate", prompt=prompts, n=2, max_tokens=8, echo=True, temperature=1, seed=7
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice, prompt in zip(answer.choices, [prompts[0]] * 2 + [prompts[1]] * 2):
        assert choice.text.startswith(prompt), choice
    assert answer.usage.completion_tokens <= 32, answer.usage
    again = client.completions.create(
        model="generate", prompt=prompts, n=2, max_tokens=8, echo=True, temperature=1, seed=7
    )
    assert [c.text for c in again.choices] == [c.text for c in answer.choices]


def check_lengths(client):
    """What benchmarks send to have texts of one length, and what the model need not compute again."""
    ask = functools.partial(client.completions.create, model="generate", prompt=FIRST["prompt"])
    exact = {"ignore_eos": True, "min_tokens": 24}
    answer = ask(max_tokens=24, temperature=1, extra_body=exact)
    assert answer.usage.completion_tokens == 24, answer.usage
    again = ask(max_tokens=2).usage
    assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1, again
    *_, last = ask(max_tokens=2, stream=True, stream_options={"include_usage": True})
    assert last.usage == again, last


def check_stop(client):
    """A stop word ends a text wherever it begins within a token, and never shows."""
    whole = FIRST["greedy_text"]
    for word in ["memory", "emor", " rules that"]:
        assert word in whole
        expected = whole.split(word)[0]
        for stream in [False, True]:
            answer = client.completions.create(
                model="generate", prompt=FIRST["prompt"], max_tokens=64, stop=[word], stream=stream
            )
            if stream:
                chunks = [chunk.choices[0] for chunk in answer]
                text, finish = "".join(c.text for c in chunks), chunks[-1].finish_reason
            else:
                text, finish = answer.choices[0].text, answer.choices[0].finish_reason
            assert (text, finish) == (expected, "stop"), (word, text, finish)


def check_streams(client):
    """Pieces that are the whole text together, and the usage at the end."""
    for reference in REFERENCES:
        stream = client.completions.create(
            model="generate",
            prompt=reference["prompt"],
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
        assert len(pieces) > 32, len(pieces)
        assert "".join(pieces) == reference["greedy_text"], pieces
        assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 64, chunks[-1]
        assert all(chunk.usage is None for chunk in chunks[:-1])


def check_chat(client, address):
    """Chats, whole and streamed; `ferris` continues what the user said last."""
    prompt = FIRST["prompt"]
    messages = [
        {"role": "system", "content": "You have read the Rust book."},
        {"role": "user", "content": [{"type": "text", "text": prompt}]},
    ]
    answer = client.chat.completions.create(
        model="generate", messages=messages, max_completion_tokens=20
    )
    message = answer.choices[0].message
    assert message.role == "assistant" and message.content == generated(address, prompt, 20)
    assert answer.usage.prompt_tokens == len(FIRST["input_ids"]), answer.usage
    assert answer.usage.completion_tokens == 20, answer.usage
    stream = client.chat.completions.create(
        model="generate", messages=messages, max_tokens=20, n=2, stream=True
    )
    texts, roles, reasons = {0: "", 1: ""}, {}, {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles.setdefault(choice.index, choice.delta.role)
            reasons[choice.index] = choice.finish_reason
    assert texts == {0: message.content, 1: message.content}, texts
    assert set(roles.values()) == {"assistant"} and set(reasons.values()) == {"length"}


class Verdict(pydantic.BaseModel):
    """What an answer in a form of its own is to be."""

    model_config = pydantic.ConfigDict(extra="forbid")
    is_safe: bool
    crabs: Literal["one", "two"]


def check_forms(client):
    """Answers that hold to a schema, whole, streamed, and as the client parses them."""
    messages = [{"role": "user", "content": FIRST["prompt"]}]
    parsed = client.chat.completions.parse(
        model="generate", messages=messages, response_format=Verdict
    )
    choice = parsed.choices[0]
    assert isinstance(choice.message.parsed, Verdict) and choice.finish_reason == "stop", choice
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
              "additionalProperties": False}
    described = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    stream = client.chat.completions.create(
        model="generate", messages=messages, response_format=described, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert json.loads(text)["a"] in (1, 2), text
    answer = client.chat.completions.create(
        model="generate",
        messages=messages,
        response_format={"type": "json_object"},
        max_completion_tokens=8,
    )
    assert answer.choices[0].message.content.startswith("{"), answer
    wrong = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "crab"}}}
    for stream in [False, True]:
        refused(
            openai.BadRequestError,
            "response_format",
            lambda: client.chat.completions.create(
                model="generate", messages=messages, response_format=wrong, stream=stream
            ),
        )


def check_chat_fields(client):
    """Fields that change nothing are taken, those that do have their effect."""
    messages = [{"role": "user", "content": FIRST["prompt"]}]
    tool = {
        "type": "function",
        "function": {"name": "pinch", "parameters": {"type": "object", "properties": {}}},
    }
    ask = functools.partial(client.chat.completions.create, model="generate", messages=messages)
    plain = ask(max_completion_tokens=12)
    for more in [
        {"user": "a crab"},
        {"tools": [tool], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [tool], "tool_choice": "none"},
        {"store": False, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"max_tokens": 99},
        {"logprobs": False, "modalities": ["text"], "response_format": {"type": "text"}},
        {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "n": 1, "stop": None},
    ]:
        answer = ask(max_completion_tokens=12, **more)
        assert answer.choices[0].message.content == plain.choices[0].message.content, more
        assert answer.choices[0].message.tool_calls is None
    warm = [ask(max_tokens=12, temperature=1.5, seed=seed) for seed in (5, 5, 6)]
    first, again, other = [answer.choices[0].message.content for answer in warm]
    assert first == again != other, (first, other)
    stream = ask(max_tokens=12, stream=True, stream_options={"include_usage": True})
    *chunks, last = stream
    assert last.choices == [] and last.usage.total_tokens == plain.usage.total_tokens, last
    assert all(chunk.usage is None for chunk in chunks)
    word = plain.choices[0].message.content[5:9]
    stopped = ask(max_tokens=12, stop=word)
    expected = plain.choices[0].message.content.split(word)[0]
    assert stopped.choices[0].message.content == expected and word, stopped
    with client.chat.completions.stream(
        model="generate", messages=messages, max_tokens=12
    ) as events:
        whole = "".join(event.delta for event in events if event.type == "content.delta")
    assert whole == plain.choices[0].message.content, whole
    for field, wrong in [
        ("tool_choice", {"tool_choice": "required", "tools": [tool]}),
        ("tools", {"tools": "pinch"}),
        ("max_completion_tokens", {"max_completion_tokens": 0}),
        ("seed", {"seed": "a"}),
        ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("top_p", {"top_p": 1.5}),
        ("n", {"n": 0}),
        ("response_format.type", {"response_format": {"type": "xml"}}),
    ]:
        refused(openai.BadRequestError, field, lambda: ask(**wrong))


def check_embeddings(client):
    """Vectors of one text or many, the same in both encodings."""
    texts = ["The borrow checker", "A crab walks sideways along the beach", "a"]
    packed = client.embeddings.create(model="embed", input=texts)
    plain = client.embeddings.create(model="embed", input=texts, encoding_format="float")
    assert len(packed.data) == 3 and [one.index for one in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data):
        assert len(one.embedding) == 384
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-6
    alone = [client.embeddings.create(model="embed", input=text) for text in texts]
    for one, other in zip(packed.data, alone):
        cosine = sum(a * b for a, b in zip(one.embedding, other.data[0].embedding))
        assert cosine > 0.99999, cosine
    tokens = sum(answer.usage.prompt_tokens for answer in alone)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == tokens > 9, packed.usage


def check_models(client):
    """The models, and what each is for."""
    routes = {model.id: model.routes for model in client.models.list()}
    assert routes == {
        "generate": ["/v1/completions", "/v1/chat/completions"],
        "embed": ["/v1/embeddings"],
    }, routes
    assert client.models.retrieve("generate").owned_by == "consort"


def refused(kind, param, call):
    """Checks that `call` is refused with this class of exception, about this field."""
    try:
        call()
    except kind as error:
        assert error.param == param, (error.param, param)
        return error
    raise AssertionError(f"{param} was not refused")


def check_refusals(client):
    """Errors come as the client's exception classes."""
    complete = client.completions.create
    error = refused(
        openai.NotFoundError, "model", lambda: complete(model="nothing", prompt="a")
    )
    assert error.code == "model_not_found", error
    refused(openai.NotFoundError, "model", lambda: client.models.retrieve("nothing"))
    refused(openai.BadRequestError, "model", lambda: complete(model="embed", prompt="a"))
    refused(
        openai.BadRequestError,
        "temperature",
        lambda: complete(model="generate", prompt="a", temperature=3),
    )
    refused(
        openai.BadRequestError,
        "colour",
        lambda: complete(model="generate", prompt="a", extra_body={"colour": "red"}),
    )
    refused(
        openai.BadRequestError,
        "prompt",
        lambda: complete(model="generate", prompt="word " * 2000),
    )
    refused(
        openai.BadRequestError,
        "messages",
        lambda: client.chat.completions.create(
            model="generate", messages=[{"role": "system", "content": "a"}]
        ),
    )
    refused(
        openai.BadRequestError,
        "dimensions",
        lambda: client.embeddings.create(model="embed", input="a", dimensions=3),
    )
    refused(
        openai.InternalServerError,
        None,
        lambda: complete(
            model="generate",
            prompt="a",
            max_tokens=900,
            extra_headers={"consort-timeout-ms": "1"},
        ),
    )


async def check_side_by_side(address):
    """Many requests at once through the asynchronous client."""
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        calls = [
            client.completions.create(
                model="generate", prompt=reference["prompt"], max_tokens=64
            )
            for reference in REFERENCES
        ]
        answers = await asyncio.gather(*calls)
    for answer, reference in zip(answers, REFERENCES):
        assert answer.choices[0].text == reference["greedy_text"]


def check_cancellation(client):
    """A stream that is closed gives its places back: four times the model's are begun and left."""
    for _ in range(4):
        stream = client.completions.create(
            model="generate", prompt=FIRST["prompt"], max_tokens=900, n=4, stream=True
        )
        next(iter(stream))
        stream.close()
    answer = client.completions.create(model="generate", prompt=FIRST["prompt"], max_tokens=4)
    assert FIRST["greedy_text"].startswith(answer.choices[0].text)


def main(address):
    """Runs every check."""
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    check_models(client)
    check_completions(client)
    check_lengths(client)
    check_stop(client)
    check_streams(client)
    check_chat(client, address)
    check_chat_fields(client)
    check_forms(client)
    check_embeddings(client)
    check_refusals(client)
    check_cancellation(client)
    asyncio.run(check_side_by_side(address))


if __name__ == "__main__":
    main(sys.argv[1])
