"""Builds the ONNX graph of a Hugging Face Llama, in either of the two conventions decoders are exported in."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
from onnx import TensorProto

from checkpoint import Checkpoint, open_checkpoint, to_fp16
from llama_config import LlamaConfig, rotary_tables
from onnx_graph import CONFIG_KEY, MICROSOFT, Graph, ModelError

OPSET = 17
"""Old enough for every ONNX Runtime in use, new enough for all that is needed here."""

TYPES = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}


class Llama:
    """What both conventions share: embedding, normed residual stream, feed-forward, language-model head."""

    def __init__(self, checkpoint: Checkpoint, io_dtype: str) -> None:
        self.checkpoint = checkpoint
        self.config = LlamaConfig.of(checkpoint)
        self.element, self.dtype = TYPES[io_dtype]
        self.graph = Graph("llama", OPSET)
        self.graph.metadata[CONFIG_KEY] = json.dumps(checkpoint.config, sort_keys=True)
        self._cast: Dict[str, str] = {}

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

    def add_norm(self, residual: str, branch: Optional[str], prefix: str) -> Tuple[str, str]:
        """Adds a branch to the residual stream: its root-mean-square norm, and the new stream."""
        raise NotImplementedError

    def multiply_transposed(self, x: str, weight: str, output: Optional[str] = None) -> str:
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
        """The logits of every position; a tied head reads the embedding's table."""
        config = self.config
        name = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        weight = self.widened(self.stored(name, config.vocabulary, config.hidden))
        shape = ["batch_size", "sequence_length", config.vocabulary]
        self.multiply_transposed(x, weight, self.graph.output("logits", self.element, shape))

    def packed_projection(self, x: str, prefix: str) -> str:
        """Queries, keys and values of all heads in one product, [batch, sequence, (heads + 2 kv_heads) * head_size]."""
        config = self.config
        rows = [count * config.head_size for count in (config.heads, config.kv_heads, config.kv_heads)]
        packed = f"{prefix}.qkv_proj"
        parts = [(f"{prefix}.{part}_proj", count) for part, count in zip("qkv", rows)]
        self.pack(f"{packed}.weight", [self.read(f"{part}.weight", count, config.hidden) for part, count in parts])
        if config.attention_bias:
            self.pack(f"{packed}.bias", [self.read(f"{part}.bias", count) for part, count in parts])
        return self.product(x, packed, config.attention_bias)

    def output_projection(self, x: str, prefix: str) -> str:
        """The heads' results, back in the width of the residual stream."""
        config = self.config
        return self.linear(x, f"{prefix}.o_proj", config.hidden, config.heads * config.head_size, config.attention_bias)

    def linear(self, x: str, name: str, out: int, inner: int, bias: bool) -> str:
        """A linear layer of the checkpoint."""
        self.stored(f"{name}.weight", out, inner)
        if bias:
            self.stored(f"{name}.bias", out)
        return self.product(x, name, bias)

    def product(self, x: str, name: str, bias: bool) -> str:
        """`x` times the stored weight `name`, plus its bias."""
        product = self.multiply_transposed(x, self.widened(f"{name}.weight"))
        return self.graph.node("Add", product, self.widened(f"{name}.bias")) if bias else product

    def cache_tensors(self, layer: int, kind: str) -> Tuple[str, str]:
        """Declares the past and the present `key` or `value` of a layer."""
        config, lengths = self.config, ("past_sequence_length", "total_sequence_length")
        past, present = ([("batch_size"), config.kv_heads, length, config.head_size] for length in lengths)
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

    def pack(self, name: str, parts: List[np.ndarray]) -> str:
        """Stores several tensors as one, along the first axis."""
        return self.graph.weight(name, np.concatenate(parts))

    def widened(self, half: str) -> str:
        """An fp16 tensor in the type the model computes in; ONNX Runtime casts weights once, when it loads."""
        if self.element == TensorProto.FLOAT16:
            return half
        if half not in self._cast:
            self._cast[half] = self.graph.node("Cast", half, to=self.element)
        return self._cast[half]


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

    def add_norm(self, residual: str, branch: Optional[str], prefix: str) -> Tuple[str, str]:
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

    def multiply_transposed(self, x: str, weight: str, output: Optional[str] = None) -> str:
        """The operator reads the weight the way it lies, so a tied table needs no second copy."""
        return self.graph.node("FusedMatMul", x, weight, output=output, domain=MICROSOFT, transB=1)


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
        lowest = graph.scalar(np.finfo(self.dtype).min, self.dtype)
        return graph.node("Where", graph.node("And", kept, causal), graph.scalar(0, self.dtype), lowest)

    def attention(self, x: str, layer: int, prefix: str) -> str:
        """Scaled dot-product attention; the query heads that share a key head are an axis of their own, so no key is copied."""
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

    def rotated_heads(self, x: str, prefix: str) -> List[str]:
        """Rotated queries, rotated keys and values, each [batch, sequence, heads, head_size]."""
        graph, config = self.graph, self.config
        heads, kv_heads = config.heads, config.kv_heads
        packed = graph.node("Reshape", self.packed_projection(x, prefix), graph.ints(0, 0, heads + 2 * kv_heads, config.head_size))
        turning, value = graph.nodes("Split", packed, graph.ints(heads + kv_heads, kv_heads), outputs=[None, None], axis=2)
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

    def add_norm(self, residual: str, branch: Optional[str], prefix: str) -> Tuple[str, str]:
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

    def multiply_transposed(self, x: str, weight: str, output: Optional[str] = None) -> str:
        """ONNX Runtime turns the weight once, when it loads."""
        return self.graph.node("MatMul", x, self.graph.node("Transpose", weight, perm=[1, 0]), output=output)


def genai_config(checkpoint: Checkpoint, filename: str) -> Dict[str, object]:
    """The `genai_config.json` that onnxruntime-genai, and servers that know its format, read beside the model."""
    config, shape = checkpoint.config, LlamaConfig.of(checkpoint)
    end = config.get("eos_token_id")
    padding = config.get("pad_token_id")
    decoder = {
        "filename": filename,
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_hidden_layers": shape.layers,
        "session_options": {"provider_options": []},
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",
        "bos_token_id": config.get("bos_token_id"),
        "eos_token_id": end,
        "pad_token_id": padding if padding is not None else (end[0] if isinstance(end, list) else end),
        "context_length": shape.context,
        "vocab_size": shape.vocabulary,
        "decoder": decoder,
    }
    search = {
        "max_length": shape.context,
        "min_length": 0,
        "do_sample": False,
        "top_k": 1,
        "top_p": 1.0,
        "temperature": 1.0,
        "repetition_penalty": 1.0,
        "num_beams": 1,
        "past_present_share_buffer": True,
    }
    return {"model": model, "search": search}


def convert(options: argparse.Namespace) -> None:
    """Builds and writes what the command line asks for."""
    checkpoint = open_checkpoint(options.source, options.random)
    if options.form == "gqa":
        GroupQuery(checkpoint, options.io_dtype).build().save(options.output)
        beside = options.output.with_name("genai_config.json")
        beside.write_text(json.dumps(genai_config(checkpoint, options.output.name), indent=2) + "\n", encoding="utf-8")
    else:
        Optimum(checkpoint, options.io_dtype, options.position_ids).build().save(options.output)


def parse(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint folder (config.json and *.safetensors), or a model.onnx that this script built")
    parser.add_argument("output", type=Path, help="the model.onnx to write")
    parser.add_argument("--form", choices=["gqa", "optimum"], default="gqa", help="gqa: onnxruntime-genai's convention, with genai_config.json (default); optimum: Hugging Face Optimum's")
    parser.add_argument("--io-dtype", choices=list(TYPES), default="fp32", help="type of cache, logits and arithmetic: fp32 for the CPU (default), fp16 for CUDA; weights are stored as fp16 either way")
    parser.add_argument("--no-position-ids", dest="position_ids", action="store_false", help="optimum only: take the positions from attention_mask")
    parser.add_argument("--random", type=int, metavar="SEED", help="random weights for the shape in config.json, to measure speed")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs the command line; a model that cannot be built ends it with one line on standard error."""
    try:
        convert(parse())
    except (ModelError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
