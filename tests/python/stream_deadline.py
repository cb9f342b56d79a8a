"""A stream whose time is over after one of its requests is answered and while two are not.

usage: stream_deadline.py ADDRESS TRACEPARENT
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

address, traceparent = sys.argv[1:]
client = triton.InferenceServerClient(address)
answers = queue.Queue()
client.start_stream(
    lambda result, error: answers.put((result, error)),
    stream_timeout=3,
    headers={"traceparent": traceparent},
)


def send(model):
    tensor = triton.InferInput("x", [4], "FP32")
    tensor.set_data_from_numpy(np.zeros(4, np.float32))
    client.async_stream_infer(model, [tensor])


send("quick")
result, error = answers.get(timeout=60)
assert error is None, error
send("slow")
send("slow")
result, error = answers.get(timeout=60)
assert error is not None and error.status() == "StatusCode.DEADLINE_EXCEEDED", error
client.stop_stream()
