"""Builds ONNX graphs node by node and writes them, the same bytes on every run."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

CONFIG_KEY = "config.json"
"""Entry of a model's metadata that holds the checkpoint's `config.json`."""

EXTERNAL_DATA_FROM = 1_500_000_000
"""Weights above this many bytes go into `<model>.data`: protobuf ends at 2 GiB."""

EXTERNAL_DATA_SMALLEST = 1024
"""Weights below this many bytes stay in the model: ONNX Runtime reads shapes and axes while it loads the graph."""

EXTERNAL_DATA_ALIGNMENT = 4096
"""Offset unit inside the data file, so that ONNX Runtime can map tensors."""

IR_VERSION = 10
"""Read by every ONNX Runtime since 1.18."""

Dimension = Union[int, str]


class ModelError(Exception):
    """Says why a model cannot be built, and what to do about it."""


class Graph:
    """An ONNX graph under construction; tensors are known by their names."""

    def __init__(self, name: str, opset: int) -> None:
        self.name = name
        self.opset = opset
        self.metadata: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: Counter[str] = Counter()
        self._scope: list[str] = []

    def input(self, name: str, element: int, shape: Sequence[Dimension]) -> str:
        """Declares a graph input; a dimension is a number or the name of a free one."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def optional_input(self, name: str, element: int, shape: Sequence[Dimension], default: np.ndarray) -> str:
        """Declares a graph input that a run may leave out, which then is `default`."""
        self.weight(name, default)
        return self.input(name, element, shape)

    def output(self, name: str, element: int, shape: Sequence[Dimension]) -> str:
        """Declares a graph output; some node must write the tensor of that name."""
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of the nodes made inside, as a path."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output and returns the output's name."""
        return self.nodes(op, *inputs, outputs=[output], **attributes)[0]

    def nodes(
        self, op: str, *inputs: str, outputs: Sequence[str | None], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs: `None` asks for a name, `""` leaves an output away."""
        name = self._unique("/".join(["", *self._scope, op]))
        names = [f"{name}:{index}" if given is None else given for index, given in enumerate(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name, domain=domain, **attributes))
        return names

    def weight(self, name: str, array: np.ndarray) -> str:
        """Stores an array in the file, once for each name."""
        self._weights.setdefault(name, array)
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector as a constant."""
        return self.weight("ints/" + ",".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float, dtype: type) -> str:
        """A constant of rank 0."""
        return self.weight(f"{np.dtype(dtype).name}/{value}", np.array(value, dtype))

    def save(self, path: Path) -> None:
        """Writes the model, with its weights beside it in `<path>.data` when they are too many for one file."""
        size = sum(array.nbytes for array in self._weights.values())
        path.parent.mkdir(parents=True, exist_ok=True)
        if size > EXTERNAL_DATA_FROM:
            tensors = _write_external(self._weights, path.with_name(path.name + ".data"))
        else:
            tensors = [_tensor(name, array) for name, array in self._weights.items()]
        path.write_bytes(self._model(tensors).SerializeToString(deterministic=True))

    def _model(self, tensors: list[onnx.TensorProto]) -> onnx.ModelProto:
        domains = sorted({node.domain for node in self._nodes} | {""})
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="consort")
        model.graph.CopyFrom(helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, tensors))
        for domain in domains:
            model.opset_import.add(domain=domain, version=1 if domain else self.opset)
        for key, value in sorted(self.metadata.items()):
            model.metadata_props.add(key=key, value=value)
        return model

    def _unique(self, name: str) -> str:
        self._names[name] += 1
        count = self._names[name]
        return name if count == 1 else f"{name}_{count}"


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def _write_external(weights: dict[str, np.ndarray], path: Path) -> list[onnx.TensorProto]:
    """Streams the large weights into one file and returns the tensors, these pointing into it."""
    tensors = []
    with path.open("wb") as file:
        for name, array in weights.items():
            if array.nbytes < EXTERNAL_DATA_SMALLEST:
                tensors.append(_tensor(name, array))
                continue
            file.write(b"\0" * (-file.tell() % EXTERNAL_DATA_ALIGNMENT))
            where = {"location": path.name, "offset": file.tell(), "length": array.nbytes}
            file.write(np.ascontiguousarray(array).data)
            tensors.append(_external_tensor(name, array, where))
    return tensors


def _external_tensor(name: str, array: np.ndarray, where: dict[str, object]) -> onnx.TensorProto:
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=element, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def stored_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Reads back the weights of a model that `Graph.save` wrote, and its checkpoint's configuration."""
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's error class differs between its implementations
        raise ModelError(f"`{path}` is not an ONNX model: {error}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONFIG_KEY not in metadata:
        raise ModelError(f"`{path}` holds no `{CONFIG_KEY}` in its metadata: give a model that these scripts built")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return weights, json.loads(metadata[CONFIG_KEY])
