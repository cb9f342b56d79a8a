"""Builds the ONNX graph of a Hugging Face BERT encoder, of the standard operators that run fastest on a CPU."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto

from checkpoint import Folder, to_fp16
from onnx_graph import CONFIG_KEY, Graph, ModelError

OPSET = 23
"""The first with `Attention`, which ONNX Runtime computes on a CPU since 1.23; on a card 1.24 does not and 1.31 does."""

ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForTokenClassification")
"""Those whose encoder is the same; a head on top of it is left away."""

HIDDEN = -1e30
"""What hides a token's score; the lowest float is infinity to whoever multiplies scores by log2(e), as cards do."""

APPROXIMATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""How each activation that a configuration may name computes the Gaussian error linear unit."""


class Bert:
    """A BERT encoder: embeddings, then layers of attention and feed-forward, each normed after its residual."""

    def __init__(self, checkpoint: Folder, half_weights: bool) -> None:
        checkpoint.require_architecture(*ARCHITECTURES)
        self.checkpoint = checkpoint
        self.half_weights = half_weights
        self.layers = checkpoint.setting("num_hidden_layers")
        self.hidden = checkpoint.setting("hidden_size")
        self.heads = checkpoint.setting("num_attention_heads")
        self.epsilon = checkpoint.config.get("layer_norm_eps", 1e-12)
        self.approximation = self.chosen("hidden_act", "gelu", APPROXIMATIONS)
        self.chosen("position_embedding_type", "absolute", {"absolute": ""})
        self.prefix = "bert." if checkpoint.has("bert.embeddings.word_embeddings.weight") else ""
        self.graph = Graph("bert", OPSET)
        self.graph.metadata[CONFIG_KEY] = json.dumps(checkpoint.config, sort_keys=True)

    def chosen(self, key: str, default: str, supported: dict[str, str]) -> str:
        """What a setting of the configuration stands for."""
        value = self.checkpoint.config.get(key, default)
        if value not in supported:
            choices = "`, `".join(supported)
            raise ModelError(f"`{self.checkpoint.origin}` has `{key}` `{value}`: only `{choices}` can be built")
        return supported[value]

    def build(self) -> Graph:
        """Adds the whole encoder to the graph."""
        graph, shape = self.graph, ["batch", "sequence"]
        tokens = graph.input("input_ids", TensorProto.INT64, shape)
        mask = graph.input("attention_mask", TensorProto.INT64, shape)
        types = graph.input("token_type_ids", TensorProto.INT64, shape)
        with graph.scope("embeddings"):
            x = self.embedding(tokens, types)
        with graph.scope("mask"):
            bias = self.mask_bias(mask)
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            last = layer == self.layers - 1
            with graph.scope(prefix):
                x = self.attention(x, bias, f"{prefix}.attention")
                x = self.feed_forward(x, prefix, output="last_hidden_state" if last else None)
        graph.output("last_hidden_state", TensorProto.FLOAT, [*shape, self.hidden])
        return graph

    def embedding(self, tokens: str, types: str) -> str:
        """Word, position and segment vectors, added and normed."""
        graph = self.graph
        words = graph.node("Gather", self.table("word", "vocab_size"), tokens)
        segments = graph.node("Gather", self.table("token_type", "type_vocab_size"), types)
        # Slicing leaves the length unknown until the model runs, so ONNX Runtime cannot fuse the additions and norms
        # below: its SkipLayerNormalization takes 8 times as long on a CPU as Add and LayerNormalization (1.31.1).
        length = graph.node("Shape", tokens, start=1, end=2)
        positions = graph.node("Slice", self.table("position", "max_position_embeddings"), graph.ints(0), length)
        return self.add_norm(graph.node("Add", words, segments), positions, "embeddings.LayerNorm")

    def table(self, kind: str, rows: str) -> str:
        """One of the three tables of the embedding; `rows` is the setting that counts its rows."""
        return self.weight(f"embeddings.{kind}_embeddings.weight", self.checkpoint.setting(rows), self.hidden)

    def mask_bias(self, mask: str) -> str:
        """Zero for the tokens to look at and `HIDDEN` for padding, [batch, 1, sequence, sequence]."""
        graph = self.graph
        kept = graph.node("Cast", graph.node("Unsqueeze", mask, graph.ints(1, 2)), to=TensorProto.BOOL)
        bias = graph.node("Where", kept, graph.scalar(0, np.float32), graph.scalar(HIDDEN, np.float32))
        # The same for every token that looks, which ONNX Runtime does not take as one row for all of them.
        length = graph.node("Shape", mask, start=1, end=2)
        shape = graph.node("Concat", graph.ints(1, 1), length, graph.ints(1), axis=0)
        return graph.node("Expand", bias, shape)

    def attention(self, x: str, bias: str, prefix: str) -> str:
        """Self-attention over the tokens that the mask keeps, and its normed residual."""
        graph, size = self.graph, self.hidden
        # The key's bias adds the same to all scores of a token, which softmax takes away.
        query = self.linear(x, f"{prefix}.self.query", size, size)
        key, value = (self.product(x, f"{prefix}.self.{part}", size, size) for part in ("key", "value"))
        # As operators of their own, transposes, products and softmax take longer: 2 to 5 % of a run on one core, and
        # 7 to 12 % on two, where each leaves half of its rows in the other core's cache than the next reads them in.
        attended = graph.node("Attention", query, key, value, bias, q_num_heads=self.heads, kv_num_heads=self.heads)
        product = self.product(attended, f"{prefix}.output.dense", size, size)
        projected = graph.node("Add", product, self.output_bias(prefix))
        return self.add_norm(projected, x, f"{prefix}.output.LayerNorm")

    def output_bias(self, prefix: str) -> str:
        """The bias of the attention's output, and the value's: a token's weights sum up to one, so that comes out whole."""
        weight = self.read(f"{prefix}.output.dense.weight", self.hidden, self.hidden)
        bias, value = (self.read(f"{prefix}.{part}.bias", self.hidden) for part in ("output.dense", "self.value"))
        return self.store(f"{prefix}.output.dense.bias+value", bias + weight.astype(np.float64) @ value)

    def feed_forward(self, x: str, prefix: str, output: str | None) -> str:
        """Two layers with an activation between them, and their normed residual."""
        wide = self.checkpoint.setting("intermediate_size")
        first = self.linear(x, f"{prefix}.intermediate.dense", wide, self.hidden)
        active = self.graph.node("Gelu", first, approximate=self.approximation)
        second = self.linear(active, f"{prefix}.output.dense", self.hidden, wide)
        return self.add_norm(second, x, f"{prefix}.output.LayerNorm", output)

    def linear(self, x: str, name: str, out: int, inner: int) -> str:
        """A linear layer of the checkpoint."""
        return self.graph.node("Add", self.product(x, name, out, inner), self.weight(f"{name}.bias", out))

    def product(self, x: str, name: str, out: int, inner: int) -> str:
        """A linear layer without its bias, its weight turned to [in, out]."""
        weight = self.store(f"{name}.weight", self.read(f"{name}.weight", out, inner).T)
        return self.graph.node("MatMul", x, weight)

    def add_norm(self, x: str, residual: str, prefix: str, output: str | None = None) -> str:
        """A sum, normed."""
        norm = [self.weight(f"{prefix}.{part}", self.hidden) for part in ("weight", "bias")]
        total = self.graph.node("Add", x, residual)
        return self.graph.node("LayerNormalization", total, *norm, output=output, axis=-1, epsilon=self.epsilon)

    def weight(self, name: str, *shape: int) -> str:
        """Stores a tensor of the checkpoint as it is."""
        return self.store(name, self.read(name, *shape))

    def read(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of the checkpoint."""
        return self.checkpoint.tensor(self.prefix + name, *shape)

    def store(self, name: str, array: np.ndarray) -> str:
        """Stores a weight as fp32, or as fp16 that ONNX Runtime casts once, when it loads."""
        if not self.half_weights:
            return self.graph.weight(name, array.astype(np.float32))
        return self.graph.node("Cast", self.graph.weight(name, to_fp16(name, array)), to=TensorProto.FLOAT)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint folder: config.json and *.safetensors")
    parser.add_argument("output", type=Path, help="the model.onnx to write")
    parser.add_argument(
        "--weights",
        choices=["fp32", "fp16"],
        default="fp32",
        help="type of the weights in the file; arithmetic is fp32 either way (default fp32)",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Runs the command line; a model that cannot be built ends it with one line on standard error."""
    options = parse()
    try:
        Bert(Folder(options.source), options.weights == "fp16").build().save(options.output)
    except (ModelError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
