"""Compares streamed texts with whole ones, over every face: of characters cut into tokens, of bytes that are no characters, and before stop words.

Usage: streaming_text.py HTTP_ADDRESS GRPC_ADDRESS
"""

import json
import random
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import openai
import tritonclient.grpc as grpc

PROMPT = "Ownership is 🦀 and 所有権は"
BROKEN = "\N{REPLACEMENT CHARACTER}"
# Texts of long characters, whatever the model would say: in its tokenizer most take several tokens.
GUIDE = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "[🦀🎉日本語é ]{12,24}"}
# Texts of any tokens at all, so also of pieces of characters that never become whole.
WILD = {"temperature": 50.0, "top_k": 4096}
KINDS = {"INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32, "BOOL": bool, "BYTES": np.object_}
TYPES = {
    "max_tokens": "INT32",
    "top_k": "INT32",
    "random_seed": "UINT64",
    "temperature": "FP32",
    "stream": "BOOL",
}


def generate(http, fields):
    """The whole text of `/generate`."""
    body = json.dumps({"text_input": PROMPT, **fields}).encode()
    with urllib.request.urlopen(f"http://{http}/generate", data=body) as answer:
        return json.load(answer)["text_output"]


def generate_stream(http, fields):
    """The pieces of `/generate_stream`."""
    body = json.dumps({"text_input": PROMPT, **fields}).encode()
    with urllib.request.urlopen(f"http://{http}/generate_stream", data=body) as answer:
        lines = [line.decode("utf-8", "strict") for line in answer]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return [event["text_output"] for event in events]


def stream_infer(address, fields):
    """The pieces of ModelStreamInfer."""
    inputs = []
    for name, value in {"text_input": PROMPT, "stream": True, **fields}.items():
        kind = TYPES.get(name, "BYTES")
        values = value if isinstance(value, list) else [value]
        tensor = grpc.InferInput(name, [1, len(values)], kind)
        values = [value.encode() if kind == "BYTES" else value for value in values]
        tensor.set_data_from_numpy(np.array([values], dtype=KINDS[kind]))
        inputs.append(tensor)
    results = []
    client = grpc.InferenceServerClient(address)
    client.start_stream(lambda result, error: results.append((result, error)))
    client.async_stream_infer("generate", inputs, enable_empty_final_response=True)
    client.stop_stream()
    pieces = []
    for result, error in results:
        assert error is None, error
        text = result.as_numpy("text_output")
        if text is not None:
            pieces.append(text.reshape(-1)[0].decode("utf-8", "strict"))
    return pieces


def completions(client, fields, stop=None):
    """The pieces of a streamed completion, and why it ended."""
    fields = dict(fields)
    count = fields.pop("max_tokens")
    stream = client.completions.create(
        model="generate",
        prompt=PROMPT,
        max_tokens=count,
        stream=True,
        stop=stop,
        # The client knows temperatures up to 2; the model takes its own fields as they are.
        extra_body={name: value for name, value in fields.items() if name != "temperature"},
        temperature=min(fields["temperature"], 2) if "temperature" in fields else openai.NOT_GIVEN,
    )
    choices = [chunk.choices[0] for chunk in stream]
    return [choice.text for choice in choices], choices[-1].finish_reason


def chats(client, fields, stop):
    """The text of a streamed chat."""
    fields = dict(fields)
    count = fields.pop("max_tokens")
    stream = client.chat.completions.create(
        model="generate",
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=count,
        stream=True,
        stop=stop,
        extra_body=fields,
    )
    return [chunk.choices[0].delta.content or "" for chunk in stream]


def check_whole(http, address, client):
    """Pieces joined are the whole text, and only what never becomes a character is replaced."""
    broken = 0
    for seed in range(6):
        for more in (GUIDE | {"temperature": 1.5}, WILD):
            fields = {"max_tokens": 48, "random_seed": seed, **more}
            whole = generate(http, fields)
            for pieces in (generate_stream(http, fields), stream_infer(address, fields)):
                assert "".join(pieces) == whole, (seed, pieces, whole)
                assert len(pieces) > 4, pieces
            broken += BROKEN in whole
            assert BROKEN not in whole or more is WILD, whole
        fields = {"max_tokens": 48, "random_seed": seed, "temperature": 2.0, "top_k": 4096}
        assert "".join(completions(client, fields)[0]) == generate(http, fields)
    assert broken > 0, "no text had a broken character, so nothing was tried"
    # The likeliest tokens are the same whatever the seed.
    fields = {"max_tokens": 48, **GUIDE}
    assert "".join(completions(client, fields)[0]) == generate(http, fields)


def check_stop(http, address, client, fields, whole, word):
    """A text ends before this word on every face."""
    expected = whole.split(word)[0]
    never = whole[-1] + "never"
    pieces, reason = completions(client, fields, stop=[never, word])
    assert "".join(pieces) == expected, (word, pieces, whole)
    assert reason == "stop"
    stopped = fields | {"stop_words": [never, word]}
    assert generate(http, stopped) == expected, (word, whole)
    for pieces in (generate_stream(http, stopped), stream_infer(address, stopped)):
        assert "".join(pieces) == expected, (word, pieces, whole)
    if "temperature" not in fields:
        assert "".join(chats(client, fields, [word])) == expected


def check_stops(http, address, client):
    """A text ends before its stop word, wherever that begins and ends within tokens and pieces."""
    chance = random.Random(5)
    # The likeliest text is one, whatever the seed, and the same in any company: words share steps of
    # the model. What a seed chooses by a hair may be another token when a batch rounds otherwise.
    texts = [(GUIDE, 16, 8)]
    texts += [({"temperature": 2.0, "random_seed": seed}, 4, 1) for seed in range(4)]
    for more, count, at_once in texts:
        fields = {"max_tokens": 40, **more}
        whole = generate(http, fields)
        words = []
        for _ in range(count):
            start = chance.randrange(len(whole) - 1)
            word = whole[start : start + chance.randint(1, 5)]
            words += [] if BROKEN in word else [word]
        assert words, whole
        with ThreadPoolExecutor(at_once) as pool:
            check = partial(check_stop, http, address, client, fields, whole)
            list(pool.map(check, words))


def main(http, address):
    """Runs every check."""
    client = openai.OpenAI(base_url=f"http://{http}/v1", api_key="none", max_retries=0)
    check_whole(http, address, client)
    check_stops(http, address, client)


if __name__ == "__main__":
    main(*sys.argv[1:])
