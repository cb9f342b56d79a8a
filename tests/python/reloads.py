"""Reloads a step of an ensemble while it is called, and looks for what is left behind."""

import os
import sys
import threading
import time

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

http_address, grpc_address, reloads, process = sys.argv[1:]

CONFIG = """{
  "backend": "identity",
  "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
  "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
  "parameters": {"round": {"string_value": "%d"}}
}"""

stop = threading.Event()
failures, answers = [], []


def call(module, address, model):
    client = module.InferenceServerClient(address)
    count = 0
    while not stop.is_set():
        values = np.full(4, count, dtype=np.float32)
        tensor = module.InferInput("x", [4], "FP32")
        tensor.set_data_from_numpy(values)
        try:
            answer = client.infer(model, [tensor]).as_numpy("y")
            assert (answer == values).all(), answer
            count += 1
        except Exception as error:  # every failure counts, whatever it is
            failures.append(f"{model}: {error}")
    answers.append(count)


def threads():
    return len(os.listdir(f"/proc/{process}/task"))


def load(control, round):
    files = {"file:1/round": str(round).encode()} if round % 2 else None
    control.load_model("second", config=CONFIG % round, files=files)


control = httpclient.InferenceServerClient(http_address, network_timeout=60)
load(control, 0)
callers = [
    threading.Thread(target=call, args=arguments)
    for arguments in [
        (httpclient, http_address, "chain"),
        (grpcclient, grpc_address, "chain"),
        (grpcclient, grpc_address, "second"),
    ]
]
for caller in callers:
    caller.start()
load(control, 2)
before = threads()
for round in range(int(reloads)):
    load(control, round + 3)
stop.set()
for caller in callers:
    caller.join()
assert not failures, failures[:3]
assert min(answers) > 0, answers

control.unload_model("second")
control.load_model("second")
deadline = time.monotonic() + 30
while threads() > before + 2 and time.monotonic() < deadline:
    time.sleep(0.05)
assert threads() <= before + 2, (before, threads())
print(f"{sum(answers)} answers over {reloads} reloads")
