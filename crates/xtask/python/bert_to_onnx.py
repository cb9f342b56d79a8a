"""Builds the ONNX graph of a Hugging Face BERT encoder from operators that ONNX Runtime runs fused."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional

import numpy as np
from onnx import TensorProto

from checkpoint import Folder, to_fp16
from onnx_graph import CONFIG_KEY, MICROSOFT, Graph, ModelError

OPSET = 17
"""Old enough for every ONNX Runtime in use, new enough for all that is needed here."""

ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForTokenClassification")
"""Those whose encoder is the same; a head on top of it is left away."""

ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}
"""Operators that add a bias and activate; `FastGelu` is the approximation by tanh."""


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
        self.activation = self.chosen("hidden_act", "gelu", ACTIVATIONS)
        self.chosen("position_embedding_type", "absolute", {"absolute": ""})
        self.prefix = "bert." if checkpoint.has("bert.embeddings.word_embeddings.weight") else ""
        self.graph = Graph("bert", OPSET)
        self.graph.metadata[CONFIG_KEY] = json.dumps(checkpoint.config, sort_keys=True)

    def chosen(self, key: str, default: str, supported: dict) -> str:
        """What a setting of the configuration stands for."""
        value = self.checkpoint.config.get(key, default)
        if value not in supported:
            choices = "`, `".join(supported)
            raise ModelError(f"`{self.checkpoint.origin}` has `{key}` `{value}`: only `{choices}` can be built")
        return supported[value]

    def build(self) -> Graph:
        """Adds the whole encoder to the graph."""
        graph, shape = self.graph, ["batch", "sequence"]
        names = ["input_ids", "attention_mask", "token_type_ids"]
        tokens, mask, types = (
            graph.node("Cast", graph.input(name, TensorProto.INT64, shape), to=TensorProto.INT32) for name in names
        )
        with graph.scope("embeddings"):
            x = self.embedding(tokens, types)
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            last = layer == self.layers - 1
            with graph.scope(prefix):
                x = self.attention(x, mask, f"{prefix}.attention")
                x = self.feed_forward(x, prefix, output="last_hidden_state" if last else None)
        graph.output("last_hidden_state", TensorProto.FLOAT, [*shape, self.hidden])
        return graph

    def embedding(self, tokens: str, types: str) -> str:
        """Word, position and segment vectors, added and normed."""
        setting = self.checkpoint.setting
        tables = [
            self.weight("embeddings.word_embeddings.weight", setting("vocab_size"), self.hidden),
            self.weight("embeddings.position_embeddings.weight", setting("max_position_embeddings"), self.hidden),
            self.weight("embeddings.token_type_embeddings.weight", setting("type_vocab_size"), self.hidden),
        ]
        norm = self.norm_weights("embeddings.LayerNorm")
        return self.graph.nodes(
            "EmbedLayerNormalization", tokens, types, *tables, *norm,
            outputs=[None, ""], domain=MICROSOFT, epsilon=self.epsilon,
        )[0]  # fmt: skip

    def attention(self, x: str, mask: str, prefix: str) -> str:
        """Self-attention over the tokens that the mask keeps, and its normed residual."""
        names = [f"{prefix}.self.{part}" for part in ("query", "key", "value")]
        weights = [self.read(f"{name}.weight", self.hidden, self.hidden).T for name in names]
        biases = [self.read(f"{name}.bias", self.hidden) for name in names]
        packed = self.store(f"{prefix}.self.qkv.weight", np.concatenate(weights, axis=1))
        bias = self.store(f"{prefix}.self.qkv.bias", np.concatenate(biases))
        attended = self.graph.node("Attention", x, packed, bias, mask, domain=MICROSOFT, num_heads=self.heads)
        return self.project_and_norm(attended, x, f"{prefix}.output", self.hidden)

    def feed_forward(self, x: str, prefix: str, output: Optional[str]) -> str:
        """Two layers with an activation between them, and their normed residual."""
        wide = self.checkpoint.setting("intermediate_size")
        first = self.product(x, f"{prefix}.intermediate.dense", wide, self.hidden)
        bias = self.weight(f"{prefix}.intermediate.dense.bias", wide)
        active = self.graph.node(self.activation, first, bias, domain=MICROSOFT)
        return self.project_and_norm(active, x, f"{prefix}.output", wide, output)

    def project_and_norm(self, x: str, residual: str, prefix: str, inner: int, output: Optional[str] = None) -> str:
        """A linear layer back to the model's width, plus its residual, normed."""
        product = self.product(x, f"{prefix}.dense", self.hidden, inner)
        bias = self.weight(f"{prefix}.dense.bias", self.hidden)
        norm = self.norm_weights(f"{prefix}.LayerNorm")
        return self.graph.node(
            "SkipLayerNormalization", product, residual, *norm, bias,
            output=output, domain=MICROSOFT, epsilon=self.epsilon,
        )  # fmt: skip

    def product(self, x: str, name: str, out: int, inner: int) -> str:
        """`x` times a weight of the checkpoint, turned to [in, out]."""
        return self.graph.node("MatMul", x, self.store(f"{name}.weight", self.read(f"{name}.weight", out, inner).T))

    def norm_weights(self, prefix: str) -> List[str]:
        """Scale and shift of a layer norm."""
        return [self.weight(f"{prefix}.weight", self.hidden), self.weight(f"{prefix}.bias", self.hidden)]

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


def parse(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint folder: config.json and *.safetensors")
    parser.add_argument("output", type=Path, help="the model.onnx to write")
    parser.add_argument("--weights", choices=["fp32", "fp16"], default="fp32", help="type of the weights in the file; arithmetic is fp32 either way (default fp32)")
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
