"""Many callers at once with tritonclient: answers as alone, batches, full queues, time-outs and priorities."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from urllib.request import urlopen

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

CALLERS = 16
SETTLE = 0.3


def encoder_inputs(length):
    ids = (1000 + np.arange(length, dtype=np.int64)).reshape(1, length)
    columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    tensors = []
    for name, column in columns.items():
        tensor = grpc.InferInput(name, list(column.shape), "INT64")
        tensor.set_data_from_numpy(column)
        tensors.append(tensor)
    return tensors


def numbers(client_module, value):
    tensor = client_module.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), value, dtype=np.float32))
    return [tensor]


def executed(client, model):
    stats = client.get_inference_statistics(model, as_json=True)["model_stats"][0]
    by_size = {int(each["batch_size"]): int(each["compute_infer"]["count"]) for each in stats["batch_stats"]}
    return int(stats["inference_count"]), int(stats["execution_count"]), by_size


def check_encoder(client):
    """Sixteen callers share executions, and each is given what it gets alone."""
    lengths = [5 + caller % 8 for caller in range(CALLERS)]
    alone = [client.infer("minilm", encoder_inputs(length)).as_numpy("last_hidden_state") for length in lengths]
    before = executed(client, "minilm")
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(4):
            together = pool.map(lambda length: client.infer("minilm", encoder_inputs(length)), lengths)
            for one, answer in zip(alone, together):
                vectors = answer.as_numpy("last_hidden_state")
                assert vectors.shape == one.shape, (vectors.shape, one.shape)
                np.testing.assert_allclose(vectors, one, atol=2e-4)
    after = executed(client, "minilm")
    inferences, executions = after[0] - before[0], after[1] - before[1]
    assert inferences == 4 * CALLERS, inferences
    assert executions < inferences, f"{executions} executions of {inferences} inferences"
    assert sum(size * count for size, count in after[2].items()) == after[0], after
    assert sum(after[2].values()) == after[1], after


def pending(metrics, model):
    text = urlopen(f"http://{metrics}/metrics").read().decode()
    prefix = f'nv_inference_pending_request_count{{model="{model}"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix))


def wait_for_pending(metrics, model, count):
    deadline = time.monotonic() + 60
    while pending(metrics, model) != count:
        assert time.monotonic() < deadline, f"`{model}` never had {count} waiting"
        time.sleep(0.005)


def refused(call):
    try:
        call()
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


def check_queue(module, client, metrics):
    """One runs, one waits until its time is up, and a third finds the queue full."""

    def ask(value):
        return client.infer("queued", numbers(module, value))

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, 1)
        # A fraction of its run, in which the instance has long taken it.
        time.sleep(SETTLE)
        waiting = pool.submit(refused, lambda: ask(2))
        wait_for_pending(metrics, "queued", 1)
        full = refused(lambda: ask(3))
        late = waiting.result()
        running.result()
    assert "Exceeds maximum queue size" in full.message(), full
    assert "Request timeout expired" in late.message(), late
    expected = "StatusCode.UNAVAILABLE" if module is grpc else "503"
    assert full.status() == late.status() == expected, (full.status(), late.status())


def check_priorities(client, metrics):
    """Who asks for level 1 is served before who came earlier."""
    done = Queue()

    def ask(value, priority):
        def report(result, error):
            done.put((value, error))

        client.async_infer("ranked", numbers(grpc, value), report, priority=priority)

    ask(0, 2)
    time.sleep(SETTLE)
    ask(1, 2)
    wait_for_pending(metrics, "ranked", 1)
    ask(2, 1)
    order = [done.get(timeout=60) for _ in range(3)]
    assert order == [(0, None), (2, None), (1, None)], order


def main():
    over_http, over_grpc, metrics = sys.argv[1:]
    client = grpc.InferenceServerClient(over_grpc)
    check_encoder(client)
    check_queue(grpc, client, metrics)
    check_queue(http, http.InferenceServerClient(over_http, concurrency=4), metrics)
    check_priorities(client, metrics)


if __name__ == "__main__":
    main()
