"""Describes a decoder in the format of onnxruntime-genai."""

from __future__ import annotations

from checkpoint import Checkpoint
from llama_config import LlamaConfig


def genai_config(checkpoint: Checkpoint, filename: str) -> dict[str, object]:
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
