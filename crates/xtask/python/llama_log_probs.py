"""Computes how likely a Llama finds each token of some texts, all positions at once and without a cache, in numpy."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from checkpoint import Checkpoint, open_checkpoint
from onnx_graph import ModelError

LIKELIEST = 3
"""How many of the likeliest tokens are written for each place."""


class Forward:
    """A forward pass in double precision, written after the model's definition rather than after any graph of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        checkpoint.require_architecture("LlamaForCausalLM")
        self.checkpoint = checkpoint
        self.hidden = checkpoint.setting("hidden_size")
        self.heads = checkpoint.setting("num_attention_heads")
        self.kv_heads = checkpoint.setting("num_key_value_heads")
        self.size = checkpoint.setting("head_dim")
        self.epsilon = checkpoint.setting("rms_norm_eps")
        self.theta = checkpoint.setting("rope_parameters")["rope_theta"]

    def log_probs(self, ids: list[int]) -> np.ndarray:
        """The log-probability of every token of the vocabulary behind each of these tokens."""
        embeddings = self.weight("embed_tokens", self.checkpoint.setting("vocab_size"), self.hidden)
        x = embeddings[ids]
        for layer in range(self.checkpoint.setting("num_hidden_layers")):
            x = x + self.attention(f"layers.{layer}.", x)
            x = x + self.mlp(f"layers.{layer}.", x)
        logits = self.norm("norm", x) @ embeddings.T
        logits = logits - logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def attention(self, layer: str, x: np.ndarray) -> np.ndarray:
        """What each token takes from those before it."""
        count = len(x)
        y = self.norm(layer + "input_layernorm", x)

        def heads(name: str, number: int) -> np.ndarray:
            weight = self.weight(f"{layer}self_attn.{name}", number * self.size, self.hidden)
            return (y @ weight.T).reshape(count, number, self.size).swapaxes(0, 1)

        queries = self.rotate(heads("q_proj", self.heads))
        shared = self.heads // self.kv_heads
        keys = np.repeat(self.rotate(heads("k_proj", self.kv_heads)), shared, 0)
        values = np.repeat(heads("v_proj", self.kv_heads), shared, 0)
        scores = queries @ keys.swapaxes(1, 2) / np.sqrt(self.size) + np.triu(np.full((count, count), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        joined = (weights @ values).swapaxes(0, 1).reshape(count, self.heads * self.size)
        return joined @ self.weight(layer + "self_attn.o_proj", self.hidden, self.heads * self.size).T

    def mlp(self, layer: str, x: np.ndarray) -> np.ndarray:
        """The gated part of a layer."""
        inner = self.checkpoint.setting("intermediate_size")
        y = self.norm(layer + "post_attention_layernorm", x)
        gate = y @ self.weight(layer + "mlp.gate_proj", inner, self.hidden).T
        up = y @ self.weight(layer + "mlp.up_proj", inner, self.hidden).T
        return gate / (1 + np.exp(-gate)) * up @ self.weight(layer + "mlp.down_proj", self.hidden, inner).T

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """Turns each pair of numbers of [heads, tokens, size] by an angle that grows with the position."""
        half = self.size // 2
        angles = np.outer(np.arange(x.shape[1]), self.theta ** (-np.arange(half) / half))
        cos, sin = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)
        return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """Brings each token's numbers to one size."""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weight(name, self.hidden)

    def weight(self, name: str, *shape: int) -> np.ndarray:
        """A weight, widened."""
        return self.checkpoint.tensor(f"model.{name}.weight", *shape).astype(np.float64)


def write(options: argparse.Namespace) -> None:
    """Writes a line for each case of the reference: its prompt and the tokens that follow are one text."""
    forward = Forward(open_checkpoint(options.source))
    lines = []
    for case in json.loads(options.reference.read_text(encoding="utf-8")):
        ids = case["input_ids"] + case["greedy_ids"]
        rows = forward.log_probs(ids)[:-1]
        likeliest = np.argsort(-rows, -1, "stable")[:, :LIKELIEST]
        told = [round(float(row[token]), 5) for row, token in zip(rows, ids[1:])]
        lines.append(json.dumps({"log_probs": told, "likeliest_ids": likeliest.tolist()}))
    options.output.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Computes how likely a Llama finds each token of some texts.")
    parser.add_argument("source", type=Path, help="the checkpoint's folder, or a model.onnx built from it")
    parser.add_argument("reference", type=Path, help="the reference.json with `input_ids` and `greedy_ids`")
    parser.add_argument("output", type=Path, help="the file to write")
    try:
        write(parser.parse_args())
    except ModelError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
