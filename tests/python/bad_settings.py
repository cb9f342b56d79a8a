"""Loads a model whose settings contradict themselves: refused in Triton's words, and nothing changes.

Usage: bad_settings.py HTTP_ADDRESS GRPC_ADDRESS REPOSITORY
"""

import pathlib
import sys
import threading

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

http_address, grpc_address, repository = sys.argv[1:]

GOOD = """backend: "identity"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
parameters { key: "execute_delay_ms" value { string_value: "150" } }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""

LIMITED = 'instance_group [ { count: 1 kind: KIND_CPU rate_limiter { resources [ { name: "%s" count: 1 } ] } } ]'
WARM_UP = 'model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { data_type: %s dims: [ %d ] zero_data: true } } } ]'
FLAG = 'control_input [ { name: "%s" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]'

# What is added to the settings, and what the refusal says.
BAD = [
    ("dynamic_batching { preferred_batch_size: [ 4, 16 ] }", "dynamic batching preferred size must be <= max batch size for m"),
    ("dynamic_batching { preferred_batch_size: [ 0 ] }", "dynamic batching preferred size must be positive for m"),
    (
        "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
        "Only one priority level is allowed when 'preserve_ordering' is true for m",
    ),
    ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "default priority level must be in range [1, 2] for m"),
    (
        "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }",
        "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m",
    ),
    (
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 5 value { } } }",
        "priority queue policy must have priority level in range [1, 1] for m",
    ),
    (f"sequence_batching {{ {FLAG % 'A'} {FLAG % 'B'} }}", "START"),
    ("sequence_batching { direct { minimum_slot_utilization: 2 } }", "minimum slot utilization must be in range [0.0, 1.0] for m"),
    ("sequence_batching { } response_cache { enable: true }", "Response Cache does not currently support"),
    (WARM_UP % ("TYPE_FP32", 3), "warmup input 'x' has dims [3], but m expects [4]"),
    (WARM_UP % ("TYPE_INT32", 4), "warmup input 'x'"),
    ("max_batch_size: -1", "'max_batch_size' must be non-negative value for m"),
    ("instance_group [ { count: -1 kind: KIND_CPU } ]", "negative count"),
    (LIMITED % "none", 'Resource count for "none" is limited to 0'),
]


def write(config):
    pathlib.Path(repository, "m", "config.pbtxt").write_text(config)


def changed(addition):
    """The good settings with the addition, in the place of what it replaces."""
    field = addition.split()[0].rstrip(":")
    return "\n".join(line for line in GOOD.splitlines() if not line.startswith(field)) + "\n" + addition


def infer(client, module):
    tensor = module.InferInput("x", [1, 4], "FP32")
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    tensor.set_data_from_numpy(values)
    assert (client.infer("m", [tensor]).as_numpy("y") == values).all()


def rows(client):
    index = client.get_model_repository_index()
    if isinstance(index, list):
        return [(row["state"], row.get("reason", "")) for row in index if row["name"] == "m"]
    return [(row.state, row.reason) for row in index.models if row.name == "m"]


def refused(call, text, status):
    try:
        call()
    except InferenceServerException as error:
        assert text in error.message(), (text, error.message())
        assert error.status() == status, (text, error.status())
        return
    raise AssertionError(f"not refused: {text}")


for module, address, invalid, internal in [
    (httpclient, http_address, "400", "500"),
    (grpcclient, grpc_address, "StatusCode.INVALID_ARGUMENT", "StatusCode.INTERNAL"),
]:
    client = module.InferenceServerClient(address)
    write(GOOD)
    client.load_model("m")
    for addition, text in BAD:
        write(changed(addition))
        refused(lambda: client.load_model("m"), text, invalid)
        infer(client, module)
        (state, reason), = rows(client)
        assert state == "READY" and text in reason, (text, state, reason)
    write(GOOD)
    client.load_model("m")
    assert rows(client) == [("READY", "")], rows(client)
    # An override that fails has one text for whatever is wrong with it.
    polled = "failed to load 'm', failed to poll from model repository"
    for config in ["{", "[]", '{"no_such_field": 1}', '{"backend": "identity", "max_batch_size": -1}']:
        refused(lambda: client.load_model("m", config=config), polled, internal)
        infer(client, module)
        assert [state for state, _ in rows(client)] == ["READY"], rows(client)
    # Unloaded while it works: the request is answered, and the next is refused.
    failures = []

    def ask():
        try:
            infer(module.InferenceServerClient(address), module)
        except Exception as error:  # noqa: BLE001 - it is shown by the main thread
            failures.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    # Until it runs, of the 150 ms that it takes.
    asker.join(0.05)
    client.unload_model("m")
    asker.join()
    assert not failures, failures
    assert not client.is_model_ready("m")
    try:
        infer(client, module)
        raise AssertionError("an unloaded model answers")
    except InferenceServerException as error:
        assert "Request for unknown model: 'm' has no available versions" in error.message(), error.message()
        assert error.status() in ("404", "StatusCode.NOT_FOUND"), error.status()
