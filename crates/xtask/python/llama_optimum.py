"""Builds a Llama in Hugging Face Optimum's convention: standard operators, and a cache that grows."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from checkpoint import Checkpoint
from llama_config import rotary_tables
from llama_graph import Llama


class Optimum(Llama):
    """Hugging Face Optimum's convention: standard operators, and a cache that grows by concatenation."""

    def __init__(self, checkpoint: Checkpoint, io_dtype: str, position_ids: bool) -> None:
        super().__init__(checkpoint, io_dtype)
        self.has_position_ids = position_ids

    def inputs(self) -> None:
        """Positions choose the rotation; the mask becomes a bias on the scores."""
        graph = self.graph
        mask = graph.input("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])
        with graph.scope("lengths"):
            sequence = self.length_of("input_ids")
            past = graph.node("Sub", self.length_of(mask), sequence)
        if self.has_position_ids:
            positions = graph.input("position_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
        else:
            positions = self.positions(mask, past)
        with graph.scope("rotary"):
            self.cosines, self.sines = (self.rotary_rows(kind, positions) for kind in (0, 1))
        with graph.scope("mask"):
            self.bias = self.mask_bias(mask, past)

    def length_of(self, tensor: str) -> str:
        """The second dimension of a tensor, as a vector of one."""
        return self.graph.node("Shape", tensor, start=1, end=2)

    def positions(self, mask: str, past: str) -> str:
        """How many ones precede each new token in the mask; padding before the first counts as position 0."""
        graph = self.graph
        with graph.scope("positions"):
            counted = graph.node("CumSum", mask, graph.scalar(1, np.int64))
            from_zero = graph.node("Max", graph.node("Sub", counted, graph.ints(1)), graph.ints(0))
            return graph.node("Slice", from_zero, past, self.length_of(mask), graph.ints(1))

    def rotary_rows(self, kind: int, positions: str) -> str:
        """Cosines or sines of the new tokens, [batch, sequence, 1, head_size / 2]."""
        table = rotary_tables(self.checkpoint, self.config)[kind].astype(self.dtype)
        name = self.graph.weight(["cos_cache", "sin_cache"][kind], table)
        return self.graph.node("Unsqueeze", self.graph.node("Gather", name, positions), self.graph.ints(2))

    def mask_bias(self, mask: str, past: str) -> str:
        """Zero where a new token may look and the lowest number elsewhere, [batch, 1, 1, sequence, total]."""
        graph = self.graph
        zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
        columns = graph.node("Range", zero, graph.node("Squeeze", self.length_of(mask)), one)
        new = graph.node("Slice", columns, past, self.length_of(mask))
        causal = graph.node("LessOrEqual", columns, graph.node("Unsqueeze", new, graph.ints(1)))
        kept = graph.node("Unsqueeze", graph.node("Cast", mask, to=TensorProto.BOOL), graph.ints(1, 2, 3))
        lowest = graph.scalar(float(np.finfo(self.dtype).min), self.dtype)
        return graph.node("Where", graph.node("And", kept, causal), graph.scalar(0, self.dtype), lowest)

    def attention(self, x: str, layer: int, prefix: str) -> str:
        """Scaled dot-product attention; queries that share a key head are an axis of their own, so no key is copied."""
        graph, config = self.graph, self.config
        group = config.heads // config.kv_heads
        query, key, value = self.rotated_heads(x, prefix)
        grouped = graph.node("Reshape", query, graph.ints(0, 0, config.kv_heads, group, config.head_size))
        query = graph.node("Transpose", grouped, perm=[0, 2, 3, 1, 4])
        keys = self.extended_cache(layer, "key", key)
        values = self.extended_cache(layer, "value", value)
        scores = graph.node("MatMul", query, graph.node("Transpose", keys, perm=[0, 1, 2, 4, 3]))
        scaled = graph.node("Mul", scores, graph.scalar(config.head_size**-0.5, self.dtype))
        weights = graph.node("Softmax", graph.node("Add", scaled, self.bias), axis=-1)
        attended = graph.node("Transpose", graph.node("MatMul", weights, values), perm=[0, 3, 1, 2, 4])
        joined = graph.node("Reshape", attended, graph.ints(0, 0, config.heads * config.head_size))
        return self.output_projection(joined, prefix)

    def rotated_heads(self, x: str, prefix: str) -> list[str]:
        """Rotated queries, rotated keys and values, each [batch, sequence, heads, head_size]."""
        graph, config = self.graph, self.config
        heads, kv_heads = config.heads, config.kv_heads
        packed = graph.node(
            "Reshape", self.packed_projection(x, prefix), graph.ints(0, 0, heads + 2 * kv_heads, config.head_size)
        )
        turning, value = graph.nodes(
            "Split", packed, graph.ints(heads + kv_heads, kv_heads), outputs=[None, None], axis=2
        )
        turned = self.rotate(turning)
        query, key = graph.nodes("Split", turned, graph.ints(heads, kv_heads), outputs=[None, None], axis=2)
        return [query, key, value]

    def rotate(self, x: str) -> str:
        """Turns each pair (i, i + head_size / 2) of every head by its position's angle."""
        graph, half = self.graph, self.config.head_size // 2
        first, second = graph.nodes("Split", x, graph.ints(half, half), outputs=[None, None], axis=-1)
        left = graph.node("Sub", graph.node("Mul", first, self.cosines), graph.node("Mul", second, self.sines))
        right = graph.node("Add", graph.node("Mul", second, self.cosines), graph.node("Mul", first, self.sines))
        return graph.node("Concat", left, right, axis=-1)

    def extended_cache(self, layer: int, kind: str, new: str) -> str:
        """Appends the new keys or values to the past, [batch, kv_heads, 1, total, head_size]."""
        past, present = self.cache_tensors(layer, kind)
        by_head = self.graph.node("Transpose", new, perm=[0, 2, 1, 3])
        self.graph.node("Concat", past, by_head, output=present, axis=2)
        return self.graph.node("Unsqueeze", present, self.graph.ints(2))

    def add_norm(self, residual: str, branch: str | None, prefix: str) -> tuple[str, str]:
        """Adds, then norms in float32 whatever the model computes in, for squares leave the range of fp16."""
        graph = self.graph
        stream = residual if branch is None else graph.node("Add", residual, branch)
        wide = stream if self.element == TensorProto.FLOAT else graph.node("Cast", stream, to=TensorProto.FLOAT)
        mean = graph.node("ReduceMean", graph.node("Mul", wide, wide), axes=[-1])
        root = graph.node("Sqrt", graph.node("Add", mean, graph.scalar(self.config.epsilon, np.float32)))
        normed = graph.node("Div", wide, root)
        if self.element != TensorProto.FLOAT:
            normed = graph.node("Cast", normed, to=self.element)
        weight = self.widened(self.stored(f"{prefix}.weight", self.config.hidden))
        return graph.node("Mul", normed, weight), stream

    def multiply_transposed(self, x: str, weight: str, output: str | None = None) -> str:
        """ONNX Runtime turns the weight once, when it loads."""
        return self.graph.node("MatMul", x, self.graph.node("Transpose", weight, perm=[1, 0]), output=output)
