"""Loads and unloads models as tritonclient's users do, over HTTP and gRPC."""

import sys

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

http_address, grpc_address, repository = sys.argv[1:]

CONFIG = """{
  "backend": "identity", "max_batch_size": "%d",
  "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
  "output": [{"name": "y", "data_type": "type_fp32", "dims": [4]}]
}"""


def as_dict(config):
    return config if isinstance(config, dict) else config["config"]


def index(client, name):
    rows = client.get_model_repository_index()
    rows = rows if isinstance(rows, list) else [
        {"name": row.name, "version": row.version, "state": row.state, "reason": row.reason}
        for row in rows.models
    ]
    return [row for row in rows if row["name"] == name]


def infer(client, module, shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tensor = module.InferInput("x", list(shape), "FP32")
    tensor.set_data_from_numpy(values)
    answer = client.infer("other", [tensor]).as_numpy("y")
    assert (answer == values).all(), answer


def max_batch_size(client):
    config = client.get_model_config("other")
    return config["max_batch_size"] if isinstance(config, dict) else config.config.max_batch_size


def refused(call, text):
    try:
        call()
    except InferenceServerException as error:
        assert text in error.message(), error.message()
        return
    raise AssertionError(f"not refused: {text}")


for module, address in [(httpclient, http_address), (grpcclient, grpc_address)]:
    client = module.InferenceServerClient(address)
    assert not client.is_model_ready("other")
    client.load_model("other")
    assert client.is_model_ready("other")
    infer(client, module, (4,))

    client.load_model("other", config=CONFIG % 16)
    assert max_batch_size(client) == 16
    infer(client, module, (2, 4))

    files = {"file:3/anything": b"\x00\xff content"}
    client.load_model("other", config=CONFIG % 8, files=files)
    assert max_batch_size(client) == 8
    assert [(row["version"], row["state"]) for row in index(client, "other")] == [("3", "READY")]
    infer(client, module, (2, 4))

    polled = "failed to load 'other', failed to poll from model repository"
    refused(lambda: client.load_model("other", config="{"), polled)
    refused(lambda: client.load_model("no_such_model"), "failed to load 'no_such_model'")
    refused(lambda: client.load_model("other", files=files), "'config' must be specified")
    infer(client, module, (2, 4))

    client.unload_model("other")
    assert not client.is_model_ready("other")
    rows = index(client, "other")
    assert [(row["state"], row["reason"]) for row in rows] == [("UNAVAILABLE", "unloaded")], rows
    refused(lambda: infer(client, module, (4,)), "other")

    client.load_model("chain")
    assert client.is_model_ready("chain") and client.is_model_ready("second")
    client.unload_model("chain", unload_dependents=True)
    assert not client.is_model_ready("chain") and not client.is_model_ready("second")
