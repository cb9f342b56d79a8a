"""Low-rank adapters of linear layers: random weights, as inputs that a graph has, merged, or in an adapter's file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from onnx import TensorProto

from onnx_graph import Graph

NUMPY_TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
"""What the weights of an adapter are, as ONNX and as numpy call it."""


class Adapter:
    """The random weights of one adapter: for each linear layer a product of two thin matrices is added to its own."""

    def __init__(self, rank: int, seed: int) -> None:
        self.rank = rank
        self.seed = seed

    def weights(self, layer: str, inner: int, out: int) -> tuple[np.ndarray, np.ndarray]:
        """`A` [inner, rank] and `B` [rank, out] of a layer, in float32."""
        generator = np.random.default_rng([self.seed, zlib.crc32(layer.encode())])
        first = generator.standard_normal((inner, self.rank), np.float32) / np.sqrt(np.float32(inner))
        second = generator.standard_normal((self.rank, out), np.float32) / np.sqrt(np.float32(self.rank))
        return first, second

    def merged(self, layer: str, weight: np.ndarray) -> np.ndarray:
        """The weight [out, inner] of a layer with the adapter's product in it."""
        first, second = self.weights(layer, weight.shape[1], weight.shape[0])
        return (weight.astype(np.float32) + (first @ second).T).astype(weight.dtype)

    def save(self, path: Path, layers: dict[str, tuple[int, int]], element: int) -> None:
        """Writes the adapter as a file of ONNX Runtime's, for the layers with these inner and outer sizes."""
        # Only who writes adapters needs the package.
        import onnxruntime

        parameters = {}
        for layer, (inner, out) in layers.items():
            for name, weight in zip(names(layer), self.weights(layer, inner, out)):
                parameters[name] = onnxruntime.OrtValue.ortvalue_from_numpy(weight.astype(NUMPY_TYPES[element]))
        file = onnxruntime.AdapterFormat()
        file.set_adapter_version(1)
        file.set_model_version(1)
        file.set_parameters(parameters)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.export_adapter(str(path))


def names(layer: str) -> tuple[str, str]:
    """What the two matrices of a layer are called in the graph and in adapters."""
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def branch(graph: Graph, x: str, layer: str, sizes: tuple[int, int], element: int) -> str:
    """What an adapter adds to a layer: nothing, unless a run brings one, whose rank may be any."""
    inner, out = sizes
    first, second = names(layer)
    dtype = NUMPY_TYPES[element]
    graph.optional_input(first, element, [inner, "lora_rank"], np.zeros((inner, 0), dtype))
    graph.optional_input(second, element, ["lora_rank", out], np.zeros((0, out), dtype))
    return graph.node("MatMul", graph.node("MatMul", x, first), second)
