"""Sends sequences of requests to the models `direct` and `oldest`, and to the ensemble `behind`, as tritonclient's users do.

Usage: sequences.py HTTP_ADDRESS GRPC_ADDRESS
"""

import queue
import sys
import threading

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

MODELS = ("direct", "oldest", "behind")


def inputs(module, value):
    tensor = module.InferInput("INPUT", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], dtype=np.int32))
    return [tensor]


def check(result, total, told, sequence):
    """The sum of the sequence so far, and what the model was told."""
    assert result.as_numpy("OUTPUT").item() == total, (result.as_numpy("OUTPUT"), total)
    assert result.as_numpy("TOLD").tolist() == [told], (result.as_numpy("TOLD"), told)
    assert result.as_numpy("ID").item() == str(sequence).encode()


def run(infer, model, sequence, values):
    """A whole sequence through one client."""
    total = 0
    for place, value in enumerate(values):
        is_start, is_end = place == 0, place == len(values) - 1
        total += value
        result = infer(model, value, sequence_id=sequence, sequence_start=is_start, sequence_end=is_end)
        check(result, total, [int(is_start), 1, int(is_end)], sequence)


def unary(module, address):
    """Calls `infer` of the gRPC or HTTP client."""
    client = module.InferenceServerClient(address)
    return lambda model, value, **flags: client.infer(model, inputs(module, value), **flags)


def interleaved(infer):
    """Several threads, each with sequences of its own, of numbers and of texts as their ids."""
    failures = []

    def work(seed):
        try:
            for round, model in enumerate(MODELS):
                number = seed * 100 + round + 1
                run(infer(), model, number, list(range(seed, seed + 6)))
                run(infer(), model, f"text-{number}", [seed] * 4)
        except Exception as error:  # noqa: BLE001 - it is shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def streamed(address):
    """All requests of two interleaved sequences at once, on one stream."""
    answers = queue.Queue()
    client = grpc.InferenceServerClient(address)
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for model in MODELS:
        for place in range(5):
            for sequence in (7001, "seven"):
                client.async_stream_infer(
                    model,
                    inputs(grpc, place + 1),
                    request_id=f"{sequence}-{place}",
                    sequence_id=sequence,
                    sequence_start=place == 0,
                    sequence_end=place == 4,
                )
        for _ in range(10):
            result, error = answers.get(timeout=60)
            assert error is None, error
            sequence, place = result.get_response().id.split("-")
            place = int(place)
            total = (place + 1) * (place + 2) // 2
            check(result, total, [int(place == 0), 1, int(place == 4)], sequence)
    client.stop_stream()


def parameters(address):
    """A response says which sequence it belongs to, and where it stands in it."""
    infer = unary(grpc, address)
    for model in MODELS:
        response = infer(model, 1, sequence_id=9001, sequence_start=True).get_response()
        assert response.parameters["sequence_id"].int64_param == 9001, response.parameters
        assert response.parameters["sequence_start"].bool_param
        assert not response.parameters["sequence_end"].bool_param
        response = infer(model, 1, sequence_id=9001, sequence_end=True).get_response()
        assert response.parameters["sequence_end"].bool_param, response.parameters
        assert not response.parameters["sequence_start"].bool_param


def large(front):
    """An id beyond the signed numbers of gRPC stays what it is."""
    run(unary(http, front), "direct", 2**64 - 1 - 2**32, [3, 4])


def restarts(address):
    """A start on a live sequence begins it anew, and so does one after its end."""
    infer = unary(grpc, address)
    for model in MODELS:
        for total, flags in ((5, {"sequence_start": True}), (10, {}), (5, {"sequence_start": True})):
            assert infer(model, 5, sequence_id=9100, **flags).as_numpy("OUTPUT").item() == total
        run(infer, model, 9100, [1, 2])
        run(infer, model, 9100, [3])


def refused(infer, text, model, value=1, **flags):
    try:
        infer(model, value, **flags)
    except InferenceServerException as error:
        assert text in error.message(), error
        return
    raise AssertionError(f"{model} took {flags}")


def refusals(infer):
    for model in ("direct", "oldest"):
        refused(
            infer,
            f"inference request for sequence 9999 to model '{model}' must specify the START flag on the first "
            "request of the sequence",
            model,
            sequence_id=9999,
        )
        refused(
            infer,
            f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID",
            model,
        )
        run(infer, model, 9998, [1, 2])
        refused(infer, "must specify the START flag", model, sequence_id=9998)
    refused(infer, "must specify the START flag", "behind", sequence_id=9999)


def batches(address):
    tensor = grpc.InferInput("INPUT", [2, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[1], [2]], dtype=np.int32))
    client = grpc.InferenceServerClient(address)
    try:
        client.infer("direct", [tensor], sequence_id=1, sequence_start=True)
    except InferenceServerException as error:
        assert "must specify batch-size 1 due to requirements of sequence batcher" in error.message()
    else:
        raise AssertionError("a batch of two was taken")


def metadata(address):
    """Controls and states are nobody's business."""
    client = grpc.InferenceServerClient(address)
    described = client.get_model_metadata("direct")
    assert [tensor.name for tensor in described.inputs] == ["INPUT"]
    assert "SUM_OUT" not in [tensor.name for tensor in described.outputs]


def main():
    front, address = sys.argv[1:]
    run(unary(grpc, address), "direct", 1, [1, 2, 3])
    run(unary(http, front), "oldest", 2, [1, 2, 3])
    interleaved(lambda: unary(grpc, address))
    interleaved(lambda: unary(http, front))
    streamed(address)
    parameters(address)
    large(front)
    restarts(address)
    refusals(unary(grpc, address))
    refusals(unary(http, front))
    batches(address)
    metadata(address)


if __name__ == "__main__":
    main()
