"""Reads what a Llama's `config.json` says about its shape and its rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint import Checkpoint
from onnx_graph import ModelError


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama: counts, widths and switches."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    epsilon: float
    attention_bias: bool
    mlp_bias: bool
    tied_embeddings: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LlamaConfig:
        """Checks that the checkpoint is a Llama and reads its shape."""
        checkpoint.require_architecture("LlamaForCausalLM")
        config, setting = checkpoint.config, checkpoint.setting
        if config.get("hidden_act", "silu") != "silu":
            raise ModelError(f"`{checkpoint.origin}` has `hidden_act` `{config['hidden_act']}`: only `silu` is built")
        heads = setting("num_attention_heads")
        return cls(
            layers=setting("num_hidden_layers"),
            hidden=setting("hidden_size"),
            intermediate=setting("intermediate_size"),
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or setting("hidden_size") // heads,
            vocabulary=setting("vocab_size"),
            context=setting("max_position_embeddings"),
            epsilon=config.get("rms_norm_eps", 1e-6),
            attention_bias=config.get("attention_bias", False),
            mlp_bias=config.get("mlp_bias", False),
            tied_embeddings=config.get("tie_word_embeddings", False),
        )


def rotary_tables(checkpoint: Checkpoint, config: LlamaConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of every position, each [context, head_size / 2] in float32."""
    rope = _rope_parameters(checkpoint.config)
    angles = np.outer(np.arange(config.context), _frequencies(checkpoint, rope, config.head_size))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` as transformers 5 writes it, or the `rope_theta` and `rope_scaling` of those before."""
    older = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
    return {**older, **(config.get("rope_parameters") or {})}


def _frequencies(checkpoint: Checkpoint, rope: dict[str, Any], head_size: int) -> np.ndarray:
    """Radians by which each pair of a head turns from one position to the next."""
    # Rounded to float32 where the reference implementation rounds them, so that late positions agree.
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    frequencies = (1.0 / np.power(np.float32(rope["rope_theta"]), exponents)).astype(np.float64)
    kind = rope.get("rope_type", rope.get("type", "default"))
    try:
        if kind == "default":
            return frequencies
        if kind == "linear":
            return frequencies / rope["factor"]
        if kind == "llama3":
            return _llama3(frequencies, rope)
    except KeyError as error:
        raise ModelError(f"the `{kind}` rope of `{checkpoint.origin}` lacks {error} in its config.json") from error
    raise ModelError(f"`{checkpoint.origin}` has rope type `{kind}`: only `default`, `linear` and `llama3` are built")


def _llama3(frequencies: np.ndarray, rope: dict[str, Any]) -> np.ndarray:
    """Slows the long waves by `factor`, keeps the short ones, and blends those between."""
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / rope["factor"])
