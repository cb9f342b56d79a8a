"""Requests over gRPC that are refused, each with an id and in a trace.

usage: grpc_refusals.py ADDRESS TRACEPARENT
"""

import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

address, traceparent = sys.argv[1:]
client = triton.InferenceServerClient(address)


def refused(model, request_id, shape, status):
    tensor = triton.InferInput("x", shape, "FP32")
    tensor.set_data_from_numpy(np.zeros(shape, np.float32))
    try:
        client.infer(model, [tensor], request_id=request_id, headers={"traceparent": traceparent})
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", error
    else:
        raise AssertionError(f"{model} took {shape}")


refused("nobody", "mine", [4], "NOT_FOUND")
refused("quick", "yours", [5], "INVALID_ARGUMENT")
