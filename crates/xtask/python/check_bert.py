"""Compares a model that `bert_to_onnx.py` built with a forward pass in numpy; needs onnxruntime and tokenizers."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from checkpoint import Folder

SENTENCES = [
    "Ownership is a set of rules that govern how a Rust program manages memory.",
    "hello",
    "",
    "The quick brown fox jumps over the lazy dog, and nobody is surprised any more.",
    "Ein kurzer Satz auf Deutsch: Übung macht den Meister!",
    "日本語の文も少し。",
    " ".join(["a long sentence that is cut off at the end"] * 40),
    "Consorts play together.",
]
"""Of very different lengths, so that a batch of them is mostly padding."""

SMALLEST_COSINE = 0.99999


class Reference:
    """The encoder written out in numpy, one sentence at a time, so that no mask is needed."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = Folder(folder)
        self.prefix = "bert." if self.checkpoint.has("bert.embeddings.word_embeddings.weight") else ""
        self.config = self.checkpoint.config
        self.hidden, self.wide = self.config["hidden_size"], self.config["intermediate_size"]

    def hidden_states(self, tokens: list[int]) -> np.ndarray:
        """The last layer's output, [tokens, hidden], for segment 0."""
        config = self.config
        words = self.get("embeddings.word_embeddings.weight", config["vocab_size"], self.hidden)[tokens]
        places = self.get("embeddings.position_embeddings.weight", config["max_position_embeddings"], self.hidden)[
            : len(tokens)
        ]
        segment = self.get("embeddings.token_type_embeddings.weight", config["type_vocab_size"], self.hidden)[0]
        x = self.norm(words + places + segment, "embeddings.LayerNorm")
        for layer in range(config["num_hidden_layers"]):
            prefix = f"encoder.layer.{layer}"
            attended = self.linear(
                self.attention(x, f"{prefix}.attention.self"), f"{prefix}.attention.output.dense", self.hidden
            )
            x = self.norm(x + attended, f"{prefix}.attention.output.LayerNorm")
            active = gelu(self.linear(x, f"{prefix}.intermediate.dense", self.wide))
            x = self.norm(x + self.linear(active, f"{prefix}.output.dense", self.hidden), f"{prefix}.output.LayerNorm")
        return x

    def attention(self, x: np.ndarray, prefix: str) -> np.ndarray:
        """Scaled dot-product attention of every head, before its output projection."""
        heads = self.config["num_attention_heads"]
        projected = (self.linear(x, f"{prefix}.{part}", self.hidden) for part in ("query", "key", "value"))
        query, key, value = (part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in projected)
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(len(x), -1)

    def linear(self, x: np.ndarray, name: str, out: int) -> np.ndarray:
        """A linear layer to `out` values."""
        return x @ self.get(f"{name}.weight", out, x.shape[-1]).T + self.get(f"{name}.bias", out)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """Layer norm over the last axis."""
        centred = x - x.mean(-1, keepdims=True)
        root = np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / root * self.get(f"{name}.weight", self.hidden) + self.get(f"{name}.bias", self.hidden)

    def get(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of the checkpoint, wide enough that rounding is the other side's."""
        return self.checkpoint.tensor(self.prefix + name, *shape).astype(np.float64)


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact form, by the error function."""
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def pooled(states: np.ndarray) -> np.ndarray:
    """The mean over the tokens, as a unit vector."""
    mean = states.mean(0)
    return mean / np.linalg.norm(mean)


def embed(session: onnxruntime.InferenceSession, rows: list[list[int]]) -> list[np.ndarray]:
    """Embeds a batch, padded to its longest row."""
    width = max(map(len, rows))
    feeds: dict[str, np.ndarray] = {
        "input_ids": np.array([row + [0] * (width - len(row)) for row in rows], np.int64),
        "attention_mask": np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64),
        "token_type_ids": np.zeros((len(rows), width), np.int64),
    }
    states = session.run(["last_hidden_state"], feeds)[0]
    return [pooled(state[: len(row)]) for state, row in zip(states, rows)]


def check(options: argparse.Namespace) -> float:
    """The smallest cosine between the model and numpy, over single sentences and a padded batch."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.model), settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    rows = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    reference = Reference(options.checkpoint)
    expected = [pooled(reference.hidden_states(row)) for row in rows]
    alone = [embed(session, [row])[0] for row in rows]
    together = embed(session, rows)
    for row, *vectors in zip(rows, expected, alone, together):
        single, batched = (vectors[0] @ vector for vector in vectors[1:])
        print(f"{len(row):4} tokens: cosine alone {single:.8f}, in the batch {batched:.8f}")
    return float(min(a @ b for found in (alone, together) for a, b in zip(expected, found)))


def main() -> None:
    """Reads the command line; the exit status is 1 when a cosine is too small."""
    parser = argparse.ArgumentParser(description="Compares an ONNX BERT with a forward pass in numpy.")
    parser.add_argument("model", type=Path, help="the model.onnx to check")
    parser.add_argument("checkpoint", type=Path, help="the folder it was built from, with its tokenizer.json")
    parser.add_argument("--threads", type=int, default=1, help="threads inside an operator (default 1)")
    smallest = check(parser.parse_args())
    print(f"smallest cosine {smallest:.8f}, at least {SMALLEST_COSINE} is asked for")
    sys.exit(0 if smallest >= SMALLEST_COSINE else 1)


if __name__ == "__main__":
    main()
