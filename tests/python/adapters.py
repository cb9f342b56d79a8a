"""Chooses a model's adapters with OpenAI's own Python client.

Usage: adapters.py HTTP_ADDRESS
"""

import sys

import openai


def check_list(client):
    """Each adapter is a model whose parent is the one that it adapts."""
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"tiny", "one", "two"}, models
    assert models["tiny"].parent is None and models["tiny"].root == "tiny", models
    for name in ["one", "two"]:
        one = client.models.retrieve(name)
        assert one == models[name] and one.parent == one.root == "tiny", one
        assert one.routes == ["/v1/completions", "/v1/chat/completions"], one


def check_texts(client):
    """Each adapter has a text of its own, whole, streamed and in a chat."""
    texts = {}
    for name in ["tiny", "one", "two", "tiny:one", "tiny:two"]:
        asked = {"model": name, "max_tokens": 12}
        answer = client.completions.create(prompt="crab", **asked)
        assert answer.model == name, answer
        texts[name] = answer.choices[0].text
        stream = client.completions.create(prompt="crab", stream=True, **asked)
        assert "".join(chunk.choices[0].text for chunk in stream) == texts[name]
        messages = [{"role": "user", "content": "crab"}]
        answer = client.chat.completions.create(messages=messages, **asked)
        assert answer.choices[0].message.content == texts[name], answer
    assert texts["one"] == texts["tiny:one"] and texts["two"] == texts["tiny:two"], texts
    assert len(set(texts.values())) == 3, texts


def check_unknown(client):
    """Names of no adapter are not found, in the shape of OpenAI's errors."""
    for name in ["three", "tiny:three"]:
        for ask in [
            lambda: client.completions.create(model=name, prompt="a"),
            lambda: client.models.retrieve(name),
        ]:
            try:
                ask()
            except openai.NotFoundError as error:
                assert error.param == "model" and error.code == "model_not_found", error
                assert "three" in error.message, error
            else:
                raise AssertionError(f"{name} was found")


def main(address):
    """Runs every check."""
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    check_list(client)
    check_texts(client)
    check_unknown(client)


if __name__ == "__main__":
    main(sys.argv[1])
