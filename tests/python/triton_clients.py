"""Exercises a whole system with tritonclient as its users do: HTTP, gRPC, their asyncio variants, streaming.

Usage: triton_clients.py HTTP_ADDRESS GRPC_ADDRESS
"""

import asyncio
import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

REFERENCES = json.loads(
    (Path(__file__).parent.parent / "fixtures/ferris/reference.json").read_text()
)


def text_inputs(module, reference, stream=None):
    """The inputs of `generate` for one reference."""
    text = module.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[reference["prompt"].encode()]], dtype=np.object_))
    count = module.InferInput("max_tokens", [1, 1], "INT32")
    count.set_data_from_numpy(np.array([[64]], dtype=np.int32))
    inputs = [text, count]
    if stream is not None:
        flag = module.InferInput("stream", [1, 1], "BOOL")
        flag.set_data_from_numpy(np.array([[stream]]))
        inputs.append(flag)
    return inputs


def embed_inputs(module, sentences):
    """The inputs of `embed` for some sentences."""
    text = module.InferInput("text", [len(sentences), 1], "BYTES")
    text.set_data_from_numpy(np.array([[s.encode()] for s in sentences], dtype=np.object_))
    return [text]


def check_control(client, is_grpc):
    """Health, metadata, configuration, statistics, index."""
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("generate") and not_ready(client, "nothing")
    options = {"as_json": True} if is_grpc else {}
    metadata = client.get_server_metadata(**options)
    assert "statistics" in metadata["extensions"], metadata
    model = client.get_model_metadata("embed", **options)
    assert model["platform"] == "ensemble", model
    assert model["inputs"][0]["name"] == "text", model
    config = client.get_model_config("generate", **options)
    config = config.get("config", config)
    assert config["model_transaction_policy"]["decoupled"] is True, config
    assert len(config["ensemble_scheduling"]["step"]) == 3, config
    if is_grpc:
        index = client.get_model_repository_index(as_json=True)["models"]
    else:
        index = client.get_model_repository_index()
    states = {row["name"]: row["state"] for row in index}
    assert states["ferris"] == "READY", states
    if is_grpc:
        statistics = client.get_inference_statistics("embed", as_json=True)["model_stats"][0]
    else:
        statistics = client.get_inference_statistics("embed")["model_stats"][0]
    assert set(statistics["inference_stats"]) >= {"success", "fail", "queue", "compute_infer"}


def not_ready(client, model):
    """Whether the client says that a model is not ready, by value or by exception."""
    try:
        return not client.is_model_ready(model)
    except InferenceServerException:
        return True


def check_embed(client, module):
    """Batched and single inference, by name of the output."""
    sentences = ["The borrow checker", "A trait is like an interface", "x"]
    output = module.InferRequestedOutput("embedding")
    both = client.infer("embed", embed_inputs(module, sentences), outputs=[output], request_id="e1")
    vectors = both.as_numpy("embedding")
    assert vectors.shape == (3, 384), vectors.shape
    for row, sentence in enumerate(sentences):
        alone = client.infer("embed", embed_inputs(module, [sentence])).as_numpy("embedding")[0]
        assert float(alone @ vectors[row]) > 0.99999, sentence


def check_errors(client, module):
    """A bad request is an exception with Triton's text, and the client goes on."""
    for model, text in (("nothing", "unknown model"), ("generate", "decoupled transaction policy")):
        try:
            client.infer(model, embed_inputs(module, ["a"]))
        except InferenceServerException as error:
            assert text in str(error), error
        else:
            raise AssertionError(f"{model} was not refused")
    try:
        client.infer("embed", [])
    except InferenceServerException as error:
        assert "missing required input" in str(error), error


def check_grpc_stream(address):
    """Tokens of `generate` over ModelStreamInfer, with the final flag, equal the reference."""
    client = grpc.InferenceServerClient(address)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for reference in REFERENCES[:2]:
        for stream in (True, False):
            client.async_stream_infer(
                "generate",
                text_inputs(grpc, reference, stream),
                request_id="r",
                enable_empty_final_response=True,
            )
            pieces, count = [], 0
            while True:
                result, error = answers.get(timeout=60)
                assert error is None, error
                response = result.get_response()
                assert response.id == "r"
                if result.as_numpy("text_output") is not None:
                    count += 1
                    pieces.append(result.as_numpy("text_output").reshape(-1)[0])
                if response.parameters["triton_final_response"].bool_param:
                    break
            assert b"".join(pieces).decode() == reference["greedy_text"], reference["prompt"]
            assert count > 32 if stream else count == 1, count
    client.stop_stream()


def check_token_ids(address):
    """The language model alone gives every reference token."""
    client = grpc.InferenceServerClient(address)
    for reference in REFERENCES:
        ids = grpc.InferInput("input_ids", [1, len(reference["input_ids"])], "INT32")
        ids.set_data_from_numpy(np.array([reference["input_ids"]], dtype=np.int32))
        count = grpc.InferInput("request_output_len", [1, 1], "INT32")
        count.set_data_from_numpy(np.array([[64]], dtype=np.int32))
        answers = queue.Queue()
        client.start_stream(lambda result, error, answers=answers: answers.put((result, error)))
        client.async_stream_infer("ferris", [ids, count])
        result, error = answers.get(timeout=60)
        assert error is None, error
        assert result.as_numpy("output_ids").reshape(-1).tolist() == reference["greedy_ids"]
        client.stop_stream()


async def check_grpc_aio(address):
    """The asyncio client: unary and streamed."""
    async with grpc_aio.InferenceServerClient(address) as client:
        result = await client.infer("embed", embed_inputs(grpc_aio, ["one"]))
        assert result.as_numpy("embedding").shape == (1, 384)
        reference = REFERENCES[0]

        async def requests():
            yield {"model_name": "generate", "inputs": text_inputs(grpc_aio, reference, True)}

        pieces = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            if result.as_numpy("text_output") is not None:
                pieces.append(result.as_numpy("text_output").reshape(-1)[0])
        assert b"".join(pieces).decode() == reference["greedy_text"]


def main():
    http_address, grpc_address = sys.argv[1:3]
    with http.InferenceServerClient(http_address) as client:
        check_control(client, is_grpc=False)
        check_embed(client, http)
        check_errors(client, http)
        for compression in ("gzip", "deflate"):
            result = client.infer(
                "embed",
                embed_inputs(http, ["one"]),
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
            assert result.as_numpy("embedding").shape == (1, 384)
    with grpc.InferenceServerClient(grpc_address) as client:
        check_control(client, is_grpc=True)
        check_embed(client, grpc)
        check_errors(client, grpc)
        result = client.infer("embed", embed_inputs(grpc, ["one"]), compression_algorithm="gzip")
        assert result.as_numpy("embedding").shape == (1, 384)
    check_grpc_stream(grpc_address)
    check_token_ids(grpc_address)
    asyncio.run(check_grpc_aio(grpc_address))


main()
