"""Builds a Llama in onnxruntime-genai's convention: one operator attends, and past and present share a buffer."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from checkpoint import Checkpoint
from llama_config import rotary_tables
from llama_graph import Llama
from onnx_graph import MICROSOFT, ModelError

PRODUCTS = ["fused", "turned", "gemm"]
"""How products with weights are written: FusedMatMul over [out, in], MatMul over [in, out], or Gemm over [out, in]."""


class GroupQuery(Llama):
    """onnxruntime-genai's convention: one operator attends, rotates and writes into a cache of full length."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        io_dtype: str,
        products: str = "fused",
        packs_gate: bool = False,
        fuses_silu: bool = False,
    ) -> None:
        super().__init__(checkpoint, io_dtype)
        self.products = products
        self.packs_gate = packs_gate
        self.fuses_silu = fuses_silu
        self._rows: str | None = None
        if products == "turned" and self.config.tied_embeddings:
            raise ModelError("a table that embedding and head share cannot be turned: leave `--products` away")

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

    def gate_and_up(self, x: str, prefix: str, wide: int, bias: bool) -> tuple[str, str]:
        """One product for both, which is taken apart again, or two."""
        if not self.packs_gate:
            return super().gate_and_up(x, prefix, wide, bias)
        names = [f"{prefix}.{part}_proj" for part in ("gate", "up")]
        packed = f"{prefix}.gate_up_proj"
        weights = np.concatenate([self.read(f"{name}.weight", wide, self.config.hidden) for name in names])
        self.graph.weight(f"{packed}.weight", self.laid(self.with_adapter(packed, weights)))
        if bias:
            self.pack(f"{packed}.bias", [self.read(f"{name}.bias", wide) for name in names])
        sizes = self.graph.ints(wide, wide)
        gate, up = self.graph.nodes(
            "Split", self.product(x, packed, bias), sizes, outputs=[None, None], axis=-1
        )  # fmt: skip
        return gate, up

    def silu(self, x: str) -> str:
        """One operator, or two that ONNX Runtime may put together itself."""
        if not self.fuses_silu:
            return super().silu(x)
        return self.graph.nodes("QuickGelu", x, outputs=[None], domain=MICROSOFT, alpha=1.0)[0]

    def laid(self, weight: np.ndarray) -> np.ndarray:
        """Turned to [in, out] where plain products want it so."""
        return np.ascontiguousarray(weight.T) if self.products == "turned" else weight

    def multiply_transposed(self, x: str, weight: str, output: str | None = None) -> str:
        """The operator reads the weight the way it lies, so a tied table needs no second copy."""
        if self.products == "turned":
            return self.graph.node("MatMul", x, weight, output=output)
        if self.products == "gemm":
            flat = self.graph.node("Flatten", x, axis=2)
            product = self.graph.node("Gemm", flat, weight, transB=1)
            return self.graph.node("Reshape", product, self.as_rows(), output=output)
        return self.graph.node("FusedMatMul", x, weight, output=output, domain=MICROSOFT, transB=1)

    def as_rows(self) -> str:
        """The shape [batch, sequence, -1] of what a flat product gives, computed once."""
        if self._rows is None:
            first = self.graph.node("Shape", "input_ids")
            self._rows = self.graph.node("Concat", first, self.graph.ints(-1), axis=0)
        return self._rows
