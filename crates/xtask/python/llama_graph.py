"""Holds what the graphs of a Llama share, whatever convention its attention and cache follow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from onnx import TensorProto

from checkpoint import Checkpoint, to_fp16
from llama_config import LlamaConfig
from lora import Adapter, branch
from onnx_graph import CONFIG_KEY, Dimension, Graph

OPSET = 17
"""Old enough for every ONNX Runtime in use, new enough for all that is needed here."""

TYPES: dict[str, tuple[int, Any]] = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}
"""What a model computes in, as ONNX and as numpy call it."""


class Llama:
    """What both conventions share: embedding, normed residual stream, feed-forward, language-model head."""

    def __init__(self, checkpoint: Checkpoint, io_dtype: str) -> None:
        self.checkpoint = checkpoint
        self.takes_adapters = False
        """Whether a run may bring an adapter's weights."""
        self.last_logits = False
        """Whether only the last position has logits."""
        self.merged: Adapter | None = None
        """The adapter whose weights are in the model's own."""
        self.adapted: dict[str, tuple[int, int]] = {}
        """The layers that adapters have weights for: their inner and outer sizes."""
        self.config = LlamaConfig.of(checkpoint)
        self.element, self.dtype = TYPES[io_dtype]
        self.graph = Graph("llama", OPSET)
        self.graph.metadata[CONFIG_KEY] = json.dumps(checkpoint.config, sort_keys=True)
        self._cast: dict[str, str] = {}

    def build(self) -> Graph:
        """Adds the whole model to the graph."""
        config, graph = self.config, self.graph
        tokens = graph.input("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
        self.inputs()
        residual, branch = self.embedding(tokens), None
        for layer in range(config.layers):
            prefix = f"model.layers.{layer}"
            with graph.scope(prefix):
                normed, residual = self.add_norm(residual, branch, f"{prefix}.input_layernorm")
                branch = self.attention(normed, layer, f"{prefix}.self_attn")
                normed, residual = self.add_norm(residual, branch, f"{prefix}.post_attention_layernorm")
                branch = self.feed_forward(normed, f"{prefix}.mlp")
        normed, _ = self.add_norm(residual, branch, "model.norm")
        self.head(normed)
        return graph

    # What the two conventions do differently.

    def inputs(self) -> None:
        """Declares the inputs beside `input_ids` and computes what every layer needs of them."""
        raise NotImplementedError

    def attention(self, x: str, layer: int, prefix: str) -> str:
        """Self-attention of one layer, from the past and into the present."""
        raise NotImplementedError

    def add_norm(self, residual: str, branch: str | None, prefix: str) -> tuple[str, str]:
        """Adds a branch to the residual stream: its root-mean-square norm, and the new stream."""
        raise NotImplementedError

    def multiply_transposed(self, x: str, weight: str, output: str | None = None) -> str:
        """`x` times a weight that lies as [out, in], as Hugging Face keeps them."""
        raise NotImplementedError

    # What they share.

    def embedding(self, tokens: str) -> str:
        """One vector for each token; the table stays fp16, only the rows taken are widened."""
        table = self.stored("model.embed_tokens.weight", self.config.vocabulary, self.config.hidden)
        return self.widened(self.graph.node("Gather", table, tokens))

    def feed_forward(self, x: str, prefix: str) -> str:
        """The gated unit: down(silu(gate(x)) * up(x))."""
        hidden, wide, bias = self.config.hidden, self.config.intermediate, self.config.mlp_bias
        gate = self.linear(x, f"{prefix}.gate_proj", wide, hidden, bias)
        up = self.linear(x, f"{prefix}.up_proj", wide, hidden, bias)
        silu = self.graph.node("Mul", gate, self.graph.node("Sigmoid", gate))
        return self.linear(self.graph.node("Mul", silu, up), f"{prefix}.down_proj", hidden, wide, bias)

    def head(self, x: str) -> None:
        """The logits of every position, or of the last alone; a tied head reads the embedding's table."""
        config = self.config
        if self.last_logits:
            end = np.iinfo(np.int64).max
            x = self.graph.node("Slice", x, self.graph.ints(-1), self.graph.ints(end), self.graph.ints(1))
        name = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        weight = self.widened(self.stored(name, config.vocabulary, config.hidden))
        shape: list[Dimension] = ["batch_size", 1 if self.last_logits else "sequence_length", config.vocabulary]
        self.multiply_transposed(x, weight, self.graph.output("logits", self.element, shape))

    def packed_projection(self, x: str, prefix: str) -> str:
        """Queries, keys and values of all heads in one product, [batch, sequence, (heads + 2 kv_heads) * head_size]."""
        config = self.config
        rows = [count * config.head_size for count in (config.heads, config.kv_heads, config.kv_heads)]
        packed = f"{prefix}.qkv_proj"
        parts = [(f"{prefix}.{part}_proj", count) for part, count in zip("qkv", rows)]
        weights = [self.read(f"{part}.weight", count, config.hidden) for part, count in parts]
        self.graph.weight(f"{packed}.weight", self.with_adapter(packed, np.concatenate(weights)))
        if config.attention_bias:
            self.pack(f"{packed}.bias", [self.read(f"{part}.bias", count) for part, count in parts])
        return self.product(x, packed, config.attention_bias)

    def output_projection(self, x: str, prefix: str) -> str:
        """The heads' results, back in the width of the residual stream."""
        config = self.config
        return self.linear(x, f"{prefix}.o_proj", config.hidden, config.heads * config.head_size, config.attention_bias)

    def linear(self, x: str, name: str, out: int, inner: int, bias: bool) -> str:
        """A linear layer of the checkpoint."""
        weight = self.read(f"{name}.weight", out, inner)
        self.graph.weight(f"{name}.weight", self.with_adapter(name, weight))
        if bias:
            self.stored(f"{name}.bias", out)
        return self.product(x, name, bias)

    def product(self, x: str, name: str, bias: bool) -> str:
        """`x` times the stored weight `name`, plus its bias."""
        product = self.multiply_transposed(x, self.widened(f"{name}.weight"))
        if self.takes_adapters:
            product = self.graph.node("Add", product, branch(self.graph, x, name, self.adapted[name], self.element))
        return self.graph.node("Add", product, self.widened(f"{name}.bias")) if bias else product

    def cache_tensors(self, layer: int, kind: str) -> tuple[str, str]:
        """Declares the past and the present `key` or `value` of a layer."""
        past, present = (
            ["batch_size", self.config.kv_heads, length, self.config.head_size]
            for length in ("past_sequence_length", "total_sequence_length")
        )
        return (
            self.graph.input(f"past_key_values.{layer}.{kind}", self.element, past),
            self.graph.output(f"present.{layer}.{kind}", self.element, present),
        )

    # Weights.

    def read(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of the checkpoint in half precision."""
        return to_fp16(name, self.checkpoint.tensor(name, *shape))

    def stored(self, name: str, *shape: int) -> str:
        """Stores a tensor of the checkpoint under its own name."""
        return self.graph.weight(name, self.read(name, *shape))

    def with_adapter(self, layer: str, weight: np.ndarray) -> np.ndarray:
        """The weight [out, inner] of a linear layer, with the merged adapter's in it."""
        self.adapted[layer] = (weight.shape[1], weight.shape[0])
        return weight if self.merged is None else self.merged.merged(layer, weight)

    def pack(self, name: str, parts: list[np.ndarray]) -> str:
        """Stores several tensors as one, along the first axis."""
        return self.graph.weight(name, np.concatenate(parts))

    def widened(self, half: str) -> str:
        """An fp16 tensor in the type the model computes in; ONNX Runtime casts weights once, when it loads."""
        if self.element == TensorProto.FLOAT16:
            return half
        if half not in self._cast:
            self._cast[half] = self.graph.node("Cast", half, to=self.element)
        return self._cast[half]
