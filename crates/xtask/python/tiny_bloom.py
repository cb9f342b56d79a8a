"""Writes a tiny Bloom in the layout of older exports, and the tokens that a numpy implementation generates with it.

Its keys are [batch * heads, head size, past] and its values [batch * heads, past, head size]; positions come from
the mask alone, as ALiBi. The weights are drawn at random, the same on every run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto

from onnx_graph import CONFIG_KEY, Graph

OPSET = 17
VOCABULARY, HIDDEN, HEADS, LAYERS, CONTEXT = 96, 32, 4, 2, 64
HEAD_SIZE = HIDDEN // HEADS
EPSILON = 1e-5
SLOPES = np.array([2.0 ** (-8.0 * (head + 1) / HEADS) for head in range(HEADS)], np.float32)
"""How much each head dislikes distance, where the number of heads is a power of two."""

PROMPTS = [[5], [7, 9, 11, 13, 2, 4, 6, 8], [3, 3, 3, 40, 41, 42, 3, 3], list(range(20, 50))]


def weights() -> dict[str, np.ndarray]:
    """Every weight by name."""
    draw = np.random.default_rng(7)
    shapes = {
        "embedding": (VOCABULARY, HIDDEN),
        "embedding_norm": (2, HIDDEN),
        "final_norm": (2, HIDDEN),
        "head": (HIDDEN, VOCABULARY),
    }
    for layer in range(LAYERS):
        shapes |= {
            f"{layer}.norm": (2, HIDDEN),
            f"{layer}.after_norm": (2, HIDDEN),
            f"{layer}.qkv": (HIDDEN, 3 * HIDDEN),
            f"{layer}.out": (HIDDEN, HIDDEN),
            f"{layer}.up": (HIDDEN, 4 * HIDDEN),
            f"{layer}.down": (4 * HIDDEN, HIDDEN),
        }
    drawn = {name: draw.normal(0, shape[0] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, array in drawn.items():
        if name.endswith("norm"):
            array[0] += 1.0
    return drawn


# The numpy implementation: the whole text at once, without a cache.


def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Layer normalisation."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * weight[0] + weight[1]


def gelu(x: np.ndarray) -> np.ndarray:
    """Bloom's approximation."""
    return 0.5 * x * (1.0 + np.tanh(0.79788456 * x * (1.0 + 0.044715 * x * x)))


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def logits_of(tokens: list[int], model: dict[str, np.ndarray]) -> np.ndarray:
    """The logits after the last token."""
    length = len(tokens)
    x = norm(model["embedding"][tokens], model["embedding_norm"])
    alibi = SLOPES[:, None, None] * np.arange(length, dtype=np.float32)
    future = np.triu(np.full((length, length), -1e9, np.float32), 1)
    for layer in range(LAYERS):
        packed = norm(x, model[f"{layer}.norm"]) @ model[f"{layer}.qkv"]
        query, key, value = packed.reshape(length, 3, HEADS, HEAD_SIZE).transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) * HEAD_SIZE**-0.5 + alibi + future
        attended = (softmax(scores) @ value).transpose(1, 0, 2).reshape(length, HIDDEN)
        x = x + attended @ model[f"{layer}.out"]
        x = x + gelu(norm(x, model[f"{layer}.after_norm"]) @ model[f"{layer}.up"]) @ model[f"{layer}.down"]
    return norm(x, model["final_norm"])[-1] @ model["head"]


def greedy(prompt: list[int], count: int, model: dict[str, np.ndarray]) -> list[int]:
    """The likeliest continuation."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(tokens, model).argmax()))
    return tokens[len(prompt) :]


# The graph.


class Bloom:
    """The same as a graph that takes and gives a cache."""

    def __init__(self, model: dict[str, np.ndarray]) -> None:
        self.graph = Graph("bloom", OPSET)
        self.graph.metadata[CONFIG_KEY] = json.dumps(config(), sort_keys=True)
        self.model = model

    def build(self) -> Graph:
        """Adds the whole model."""
        graph = self.graph
        tokens = graph.input("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
        mask = graph.input("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])
        self.bias(tokens, mask)
        x = self.norm(graph.node("Gather", self.weight("embedding"), tokens), "embedding_norm")
        for layer in range(LAYERS):
            attended = self.attention(self.norm(x, f"{layer}.norm"), layer)
            x = graph.node("Add", x, self.multiply(attended, f"{layer}.out"))
            up = self.gelu(self.multiply(self.norm(x, f"{layer}.after_norm"), f"{layer}.up"))
            x = graph.node("Add", x, self.multiply(up, f"{layer}.down"))
        shape = ["batch_size", "sequence_length", VOCABULARY]
        logits = graph.output("logits", TensorProto.FLOAT, shape)
        graph.node("MatMul", self.norm(x, "final_norm"), self.weight("head"), output=logits)
        return graph

    def bias(self, tokens: str, mask: str) -> None:
        """ALiBi and what may not be seen, [batch * heads, sequence, total]."""
        graph = self.graph
        sequence, total = (graph.node("Shape", tensor, start=1, end=2) for tensor in (tokens, mask))
        past = graph.node("Sub", total, sequence)
        zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
        positions = graph.node("Sub", graph.node("CumSum", mask, one), one)
        positions = graph.node("Cast", graph.node("Mul", positions, mask), to=TensorProto.FLOAT)
        slopes = graph.weight("slopes", SLOPES[None, :, None, None])
        alibi = graph.node("Mul", slopes, graph.node("Unsqueeze", positions, graph.ints(1, 2)))
        columns = graph.node("Range", zero, graph.node("Squeeze", total), one)
        new = graph.node("Unsqueeze", graph.node("Slice", columns, past, total), graph.ints(1))
        kept = graph.node("Unsqueeze", graph.node("Cast", mask, to=TensorProto.BOOL), graph.ints(1, 2))
        seen = graph.node("And", kept, graph.node("LessOrEqual", columns, new))
        hidden = graph.node("Where", seen, graph.scalar(0, np.float32), graph.scalar(-1e9, np.float32))
        both = graph.node("Add", alibi, hidden)
        shape = graph.node("Concat", graph.ints(-1), sequence, total, axis=0)
        self.scores_bias = graph.node("Reshape", both, shape)

    def attention(self, x: str, layer: int) -> str:
        """Attention of all heads, flat along the batch."""
        graph = self.graph
        packed = self.multiply(x, f"{layer}.qkv")
        parts = graph.node("Reshape", packed, graph.ints(0, 0, 3, HEADS, HEAD_SIZE))
        query, key, value = (
            graph.node("Gather", parts, graph.scalar(index, np.int64), axis=2) for index in range(3)
        )
        sequence = graph.node("Shape", x, start=1, end=2)
        rows = graph.node("Concat", graph.ints(-1), sequence, graph.ints(HEAD_SIZE), axis=0)
        columns = graph.node("Concat", graph.ints(-1), graph.ints(HEAD_SIZE), sequence, axis=0)
        query = graph.node("Reshape", graph.node("Transpose", query, perm=[0, 2, 1, 3]), rows)
        key = graph.node("Reshape", graph.node("Transpose", key, perm=[0, 2, 3, 1]), columns)
        value = graph.node("Reshape", graph.node("Transpose", value, perm=[0, 2, 1, 3]), rows)
        key = self.extended(layer, "key", key, ["batch_heads", HEAD_SIZE, "past_sequence_length"], 2)
        value = self.extended(layer, "value", value, ["batch_heads", "past_sequence_length", HEAD_SIZE], 1)
        scaled = graph.node("Mul", graph.node("MatMul", query, key), graph.scalar(HEAD_SIZE**-0.5, np.float32))
        shares = graph.node("Softmax", graph.node("Add", scaled, self.scores_bias), axis=-1)
        attended = graph.node("MatMul", shares, value)
        split = graph.node("Concat", graph.ints(-1, HEADS), sequence, graph.ints(HEAD_SIZE), axis=0)
        turned = graph.node("Transpose", graph.node("Reshape", attended, split), perm=[0, 2, 1, 3])
        return graph.node("Reshape", turned, graph.ints(0, 0, HIDDEN))

    def extended(self, layer: int, kind: str, new: str, shape: list, axis: int) -> str:
        """The past and the new tokens' behind it."""
        past = self.graph.input(f"past_key_values.{layer}.{kind}", TensorProto.FLOAT, shape)
        longer = [dim if dim != "past_sequence_length" else "total_sequence_length" for dim in shape]
        present = self.graph.output(f"present.{layer}.{kind}", TensorProto.FLOAT, longer)
        return self.graph.node("Concat", past, new, axis=axis, output=present)

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation."""
        scale, shift = (self.graph.weight(f"{name}.{index}", self.model[name][index]) for index in (0, 1))
        return self.graph.node("LayerNormalization", x, scale, shift, epsilon=EPSILON)

    def gelu(self, x: str) -> str:
        """Bloom's approximation."""
        graph = self.graph
        cubic, root, one, half = (graph.scalar(value, np.float32) for value in (0.044715, 0.79788456, 1.0, 0.5))
        square = graph.node("Mul", graph.node("Mul", x, x), cubic)
        inner = graph.node("Mul", graph.node("Mul", x, root), graph.node("Add", square, one))
        share = graph.node("Add", graph.node("Tanh", inner), one)
        return graph.node("Mul", graph.node("Mul", x, share), half)

    def multiply(self, x: str, name: str) -> str:
        """`x` times a weight."""
        return self.graph.node("MatMul", x, self.weight(name))

    def weight(self, name: str) -> str:
        """A weight of the model."""
        return self.graph.weight(name, self.model[name])


def config() -> dict[str, object]:
    """What a checkpoint's `config.json` would say."""
    return {"n_head": HEADS, "seq_length": CONTEXT, "vocab_size": VOCABULARY, "eos_token_id": None}


def main() -> None:
    """Writes `model.onnx` and `reference.json` into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them; made when it does not exist")
    folder = parser.parse_args().folder
    model = weights()
    Bloom(model).build().save(folder / "model.onnx")
    cases = [{"prompt": "", "input_ids": prompt, "greedy_ids": greedy(prompt, 24, model)} for prompt in PROMPTS]
    (folder / "reference.json").write_text(json.dumps(cases) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
