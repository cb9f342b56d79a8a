"""Calls each stage service alone with tritonclient, as one who debugs or profiles a single step.

Usage: one_stage.py PREPROCESS_ADDRESS MODEL_ADDRESS POSTPROCESS_ADDRESS
"""

import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "fixtures/ferris/reference.json").read_text()
)[0]


def tensor(name, values):
    """An input from an array."""
    kind = {"int32": "INT32", "object": "BYTES", "bool": "BOOL", "int64": "INT64"}[str(values.dtype)]
    made = grpc.InferInput(name, list(values.shape), kind)
    made.set_data_from_numpy(values)
    return made


def main():
    preprocess, model, postprocess = map(grpc.InferenceServerClient, sys.argv[1:4])
    for client in (preprocess, model, postprocess):
        assert client.is_server_live()

    text = np.array([[REFERENCE["prompt"].encode()]], dtype=np.object_)
    tokens = preprocess.infer("ferris_tokenize", [tensor("text_input", text)])
    ids = tokens.as_numpy("input_ids")
    assert ids.reshape(-1).tolist() == REFERENCE["input_ids"], ids

    answers = queue.Queue()
    model.start_stream(lambda result, error: answers.put((result, error)))
    count = np.array([[64]], dtype=np.int32)
    model.async_stream_infer("ferris", [tensor("input_ids", ids), tensor("request_output_len", count)])
    result, error = answers.get(timeout=60)
    assert error is None, error
    model.stop_stream()

    names = ("output_ids", "context_ids", "is_final")
    inputs = [tensor(name, result.as_numpy(name)) for name in names]
    config = postprocess.get_model_metadata("ferris_detokenize", as_json=True)
    output = config["outputs"][0]["name"]
    said = postprocess.infer("ferris_detokenize", inputs).as_numpy(output)
    assert said.reshape(-1)[0].decode() == REFERENCE["greedy_text"], said


main()
