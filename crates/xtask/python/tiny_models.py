"""Writes the small ONNX models that the Rust tests run, the same bytes on every run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_graph import Graph, ModelError

OPSET = 20
"""The first with `StringConcat`; read by every ONNX Runtime since 1.17."""

SLOW_WIDTH = 256
"""Width of the square product in one iteration of `slow`: about a quarter of a millisecond on one core."""

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
"""Every tensor type, by the name that requests give it."""


def add_sub() -> Graph:
    """Sum and difference of two INT32[16], with a batch axis."""
    graph = Graph("add_sub", OPSET)
    left, right = (graph.input(name, TensorProto.INT32, ["batch", 16]) for name in ("INPUT0", "INPUT1"))
    for op, name in (("Add", "OUTPUT0"), ("Sub", "OUTPUT1")):
        graph.node(op, left, right, output=graph.output(name, TensorProto.INT32, ["batch", 16]))
    return graph


def every_type() -> Graph:
    """Hands back one tensor of each type, of any shape of rank 2: INPUT_FP16 as OUTPUT_FP16 and so on."""
    graph = Graph("every_type", OPSET)
    for name, element in TYPES.items():
        tensor = graph.input(f"INPUT_{name}", element, [f"rows_{name}", f"columns_{name}"])
        graph.node(
            "Identity", tensor, output=graph.output(f"OUTPUT_{name}", element, [f"rows_{name}", f"columns_{name}"])
        )
    return graph


def scalar() -> Graph:
    """A tensor of rank 0 and one of rank 1: TWICE = 2 SCALAR (rank 0), SHIFTED = VECTOR + SCALAR (rank 1)."""
    graph = Graph("scalar", OPSET)
    number = graph.input("SCALAR", TensorProto.FLOAT, [])
    vector = graph.input("VECTOR", TensorProto.FLOAT, ["length"])
    graph.node("Add", number, number, output=graph.output("TWICE", TensorProto.FLOAT, []))
    graph.node("Add", vector, number, output=graph.output("SHIFTED", TensorProto.FLOAT, ["length"]))
    return graph


def no_batch() -> Graph:
    """Fixed dimensions and no batch axis: FP32[3,4] transposed to FP32[4,3]."""
    graph = Graph("no_batch", OPSET)
    matrix = graph.input("MATRIX", TensorProto.FLOAT, [3, 4])
    graph.node("Transpose", matrix, output=graph.output("TRANSPOSED", TensorProto.FLOAT, [4, 3]), perm=[1, 0])
    return graph


def slow() -> Graph:
    """Computes for as many rounds as ITERATIONS (INT64[1]) says, each a quarter of a millisecond, and tells how many.

    Every round is a run of small nodes, so a session that is told to stop does so within one round.
    """
    graph = Graph("slow", OPSET)
    iterations = graph.input("ITERATIONS", TensorProto.INT64, [1])
    # Neither dying away nor growing: small numbers below the normal range would slow some processors down.
    entry = helper.make_tensor("entry", TensorProto.FLOAT, [1], [2 / SLOW_WIDTH])
    matrix = graph.node("ConstantOfShape", graph.ints(SLOW_WIDTH, SLOW_WIDTH), value=entry)
    always, zero = graph.weight("always", np.array(True)), graph.scalar(0, np.int64)
    rounds = graph.node("Squeeze", iterations)
    _, counted = graph.nodes("Loop", rounds, always, matrix, zero, outputs=[None, None], body=_slow_round(matrix))
    graph.node("Reshape", counted, graph.ints(1), output=graph.output("RESULT", TensorProto.INT64, [1]))
    return graph


def _slow_round(matrix: str) -> onnx.GraphProto:
    """One round: a product whose result the next round needs, and a count."""
    info, square = helper.make_tensor_value_info, [SLOW_WIDTH, SLOW_WIDTH]
    nodes = [
        helper.make_node("MatMul", ["state", matrix], ["product"], "/round/MatMul"),
        helper.make_node("Tanh", ["product"], ["next_state"], "/round/Tanh"),
        helper.make_node("Constant", [], ["one"], "/round/Constant", value_int=1),
        helper.make_node("Add", ["count", "one"], ["next_count"], "/round/Add"),
        helper.make_node("Identity", ["condition"], ["next_condition"], "/round/Identity"),
    ]
    inputs = [
        info("round", TensorProto.INT64, []),
        info("condition", TensorProto.BOOL, []),
        info("state", TensorProto.FLOAT, square),
        info("count", TensorProto.INT64, []),
    ]
    outputs = [
        info("next_condition", TensorProto.BOOL, []),
        info("next_state", TensorProto.FLOAT, square),
        info("next_count", TensorProto.INT64, []),
    ]
    return helper.make_graph(nodes, "round", inputs, outputs)


def string_concat() -> Graph:
    """Joins two BYTES tensors of one shape, with a batch axis."""
    graph = Graph("string_concat", OPSET)
    parts = [graph.input(name, TensorProto.STRING, ["batch", "width"]) for name in ("FIRST", "SECOND")]
    graph.node("StringConcat", *parts, output=graph.output("JOINED", TensorProto.STRING, ["batch", "width"]))
    return graph


def string_upper() -> Graph:
    """Writes BYTES of rank 1 in capitals; only ASCII, so that no locale need be installed."""
    graph = Graph("string_upper", OPSET)
    text = graph.input("TEXT", TensorProto.STRING, ["length"])
    upper = graph.output("UPPER", TensorProto.STRING, ["length"])
    graph.node("StringNormalizer", text, output=upper, case_change_action="UPPER", is_case_sensitive=1, locale="C")
    return graph


def pick() -> Graph:
    """Takes TABLE[INDEX] of 4 numbers; an index beyond them fails while the model runs."""
    graph = Graph("pick", OPSET)
    index = graph.input("INDEX", TensorProto.INT64, ["batch", 1])
    table = graph.weight("TABLE", np.array([10, 11, 12, 13], np.float32))
    graph.node("Gather", table, index, output=graph.output("PICKED", TensorProto.FLOAT, ["batch", 1]))
    return graph


def replaceable() -> Graph:
    """Multiplies rows of 4 numbers by WEIGHTS, a constant (1, 2, 3, 4) that a request may replace."""
    graph = Graph("replaceable", OPSET)
    rows = graph.input("ROWS", TensorProto.FLOAT, ["batch", 4])
    weights = graph.optional_input("WEIGHTS", TensorProto.FLOAT, [4], np.array([1, 2, 3, 4], np.float32))
    graph.node("Mul", rows, weights, output=graph.output("PRODUCT", TensorProto.FLOAT, ["batch", 4]))
    return graph


def row_sum() -> Graph:
    """Sums rows of any width: FP32[batch, width] to FP32[batch, 1]."""
    graph = Graph("row_sum", OPSET)
    rows = graph.input("ROWS", TensorProto.FLOAT, ["batch", "width"])
    graph.node(
        "ReduceSum", rows, graph.ints(1), output=graph.output("SUM", TensorProto.FLOAT, ["batch", 1]), keepdims=1
    )
    return graph


def accumulate() -> Graph:
    """Adds INPUT to the sum of its sequence, and shows what each row was told: start, ready, end and id."""
    graph = Graph("accumulate", OPSET)
    value = graph.input("INPUT", TensorProto.INT32, ["batch", 1])
    told = [graph.input(name, TensorProto.INT32, ["batch", 1]) for name in ("START", "READY", "END")]
    sequence = graph.input("CORRID", TensorProto.STRING, ["batch", 1])
    total = graph.input("SUM_IN", TensorProto.INT32, ["batch", 1])
    graph.node("Add", total, value, output=graph.output("SUM_OUT", TensorProto.INT32, ["batch", 1]))
    graph.node("Add", total, value, output=graph.output("OUTPUT", TensorProto.INT32, ["batch", 1]))
    graph.node("Concat", *told, output=graph.output("TOLD", TensorProto.INT32, ["batch", 3]), axis=1)
    graph.node("Identity", sequence, output=graph.output("ID", TensorProto.STRING, ["batch", 1]))
    return graph


def ragged() -> Graph:
    """Sums each request's VALUES, which lie between the BOUNDS of the requests, and doubles them where they lie."""
    graph = Graph("ragged", OPSET)
    values = graph.input("VALUES", TensorProto.FLOAT, ["elements"])
    bounds = graph.input("BOUNDS", TensorProto.INT32, ["bounds"])
    graph.node("Add", values, values, output=graph.output("DOUBLED", TensorProto.FLOAT, ["elements"]))
    zero = graph.weight("zero", np.array([0], np.float32))
    total = graph.node("CumSum", graph.node("Concat", zero, values, axis=0), graph.scalar(0, np.int64))
    before = graph.node("Slice", bounds, graph.ints(0), graph.ints(-1))
    until = graph.node("Slice", bounds, graph.ints(1), graph.ints(2**31))
    ends = [graph.node("Gather", total, place) for place in (until, before)]
    sums = graph.node("Sub", *ends)
    graph.node("Unsqueeze", sums, graph.ints(1), output=graph.output("SUM", TensorProto.FLOAT, ["requests", 1]))
    return graph


MODELS: list[Callable[[], Graph]] = [
    accumulate,
    add_sub,
    every_type,
    no_batch,
    pick,
    ragged,
    replaceable,
    row_sum,
    scalar,
    slow,
    string_concat,
    string_upper,
]
"""Every model; the function's name is the file's."""


def main() -> None:
    """Writes every model into the folder named on the command line."""
    described: dict[str, str] = {model.__name__: (model.__doc__ or "").splitlines()[0] for model in MODELS}
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(f"{name + '.onnx':20} {text}" for name, text in described.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write them; made when it does not exist")
    folder = parser.parse_args().folder
    try:
        for model in MODELS:
            model().save(folder / f"{model.__name__}.onnx")
    except (ModelError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
