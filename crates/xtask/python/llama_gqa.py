"""Builds a Llama in onnxruntime-genai's convention: one operator attends, and past and present share a buffer."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from llama_config import rotary_tables
from llama_graph import Llama
from onnx_graph import MICROSOFT


class GroupQuery(Llama):
    """onnxruntime-genai's convention: one operator attends, rotates and writes into a cache of full length."""

    def inputs(self) -> None:
        """The mask only says how long each row is."""
        graph = self.graph
        mask = graph.input("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])
        with graph.scope("lengths"):
            last = graph.node("Sub", graph.node("ReduceSum", mask, graph.ints(1), keepdims=0), graph.ints(1))
            self.last_position = graph.node("Cast", last, to=TensorProto.INT32)
            total = graph.node("Gather", graph.node("Shape", mask), graph.scalar(1, np.int64))
            self.total_length = graph.node("Cast", total, to=TensorProto.INT32)
        cosines, sines = rotary_tables(self.checkpoint, self.config)
        self.cosines = graph.weight("cos_cache", cosines.astype(self.dtype))
        self.sines = graph.weight("sin_cache", sines.astype(self.dtype))

    def attention(self, x: str, layer: int, prefix: str) -> str:
        """GroupQueryAttention over the packed projection; past and present may be the same memory."""
        past_key, present_key = self.cache_tensors(layer, "key")
        past_value, present_value = self.cache_tensors(layer, "value")
        packed = self.packed_projection(x, prefix)
        cache = [past_key, past_value, self.last_position, self.total_length, self.cosines, self.sines]
        attended, _, _ = self.graph.nodes(
            "GroupQueryAttention", packed, "", "", *cache,
            outputs=[None, present_key, present_value], domain=MICROSOFT,
            num_heads=self.config.heads, kv_num_heads=self.config.kv_heads, do_rotary=1,
        )  # fmt: skip
        return self.output_projection(attended, prefix)

    def add_norm(self, residual: str, branch: str | None, prefix: str) -> tuple[str, str]:
        """One fused operator adds and norms."""
        weight = self.widened(self.stored(f"{prefix}.weight", self.config.hidden))
        epsilon = self.config.epsilon
        if branch is None:
            return self.graph.node("SimplifiedLayerNormalization", residual, weight, axis=-1, epsilon=epsilon), residual
        normed, _, _, stream = self.graph.nodes(
            "SkipSimplifiedLayerNormalization", residual, branch, weight,
            outputs=[None, "", "", None], domain=MICROSOFT, epsilon=epsilon,
        )  # fmt: skip
        return normed, stream

    def multiply_transposed(self, x: str, weight: str, output: str | None = None) -> str:
        """The operator reads the weight the way it lies, so a tied table needs no second copy."""
        return self.graph.node("FusedMatMul", x, weight, output=output, domain=MICROSOFT, transB=1)
