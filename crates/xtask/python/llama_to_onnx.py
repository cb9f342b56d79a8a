"""Builds the ONNX graph of a Hugging Face Llama, in either of the two conventions decoders are exported in."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from checkpoint import open_checkpoint
from genai_config import genai_config
from llama_gqa import GroupQuery
from llama_graph import TYPES, Llama
from llama_optimum import Optimum
from lora import Adapter
from onnx_graph import ModelError


def convert(options: argparse.Namespace) -> None:
    """Builds and writes what the command line asks for."""
    checkpoint = open_checkpoint(options.source, options.random)
    if options.form == "gqa":
        model: Llama = GroupQuery(checkpoint, options.io_dtype)
        beside = options.output.with_name("genai_config.json")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(genai_config(checkpoint, options.output.name), indent=2) + "\n", encoding="utf-8")
    else:
        model = Optimum(checkpoint, options.io_dtype, options.position_ids)
    model.takes_adapters = bool(options.adapter)
    model.last_logits = options.last_logits
    model.merged = None if options.merge is None else Adapter(options.lora_rank, options.merge)
    model.build().save(options.output)
    for name, seed in options.adapter:
        path = options.output.parent / "adapters" / f"{name}.onnx_adapter"
        Adapter(options.lora_rank, seed).save(path, model.adapted, model.element)


def named_seed(text: str) -> tuple[str, int]:
    """Reads `NAME=SEED`."""
    name, _, seed = text.partition("=")
    return name, int(seed)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source",
        type=Path,
        help="checkpoint folder (config.json and *.safetensors), or a model.onnx that this script built",
    )
    parser.add_argument("output", type=Path, help="the model.onnx to write")
    parser.add_argument(
        "--form",
        choices=["gqa", "optimum"],
        default="gqa",
        help="gqa: onnxruntime-genai's convention, with genai_config.json (default); optimum: Hugging Face Optimum's",
    )
    parser.add_argument(
        "--io-dtype",
        choices=list(TYPES),
        default="fp32",
        help="type of cache, logits and arithmetic: fp32 for the CPU (default), fp16 for CUDA; the file holds fp16",
    )
    parser.add_argument(
        "--no-position-ids",
        dest="position_ids",
        action="store_false",
        help="optimum only: take the positions from attention_mask",
    )
    parser.add_argument(
        "--random", type=int, metavar="SEED", help="random weights for the shape in config.json, to measure speed"
    )
    parser.add_argument(
        "--adapter",
        type=named_seed,
        action="append",
        default=[],
        metavar="NAME=SEED",
        help="build a graph that takes low-rank adapters, and write one with random weights to "
        "adapters/NAME.onnx_adapter beside it; may be given several times; needs onnxruntime",
    )
    parser.add_argument("--merge", type=int, metavar="SEED", help="put the weights of such an adapter into the model's own")
    parser.add_argument(
        "--last-logits", action="store_true", help="give the logits of the last position alone, which saves memory"
    )
    parser.add_argument("--lora-rank", type=int, default=4, help="how thin the adapters' matrices are (4)")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs the command line; a model that cannot be built ends it with one line on standard error."""
    try:
        convert(parse())
    except (ModelError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
