"""Reads Hugging Face checkpoints: a folder, a model built from one before, or random weights of its shape."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onnx_graph import ModelError, stored_weights

SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""How the floating-point types of a safetensors file lie in memory; numpy has no bfloat16 of its own."""


class Checkpoint:
    """A configuration and the tensors it speaks of, by their Hugging Face names and in their layout."""

    def __init__(self, origin: Path, config: dict[str, Any]) -> None:
        self.origin = origin
        self.config = config

    def require_architecture(self, *supported: str) -> None:
        """Refuses a checkpoint of another architecture than those named."""
        found = self.config.get("architectures") or ["none"]
        if not set(found) & set(supported):
            wanted = "` or `".join(supported)
            raise ModelError(f"`{self.origin}` is a `{found[0]}`: this script builds `{wanted}`")

    def setting(self, key: str) -> Any:
        """A value that the configuration must have."""
        if self.config.get(key) is None:
            raise ModelError(
                f"the config.json of `{self.origin}` lacks `{key}`: take it from the model's own repository"
            )
        return self.config[key]

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        """The tensor `name`, which must have this shape."""
        array = self._read(name, shape)
        if array is None:
            raise ModelError(f"`{self.origin}` lacks the tensor `{name}`: is the checkpoint complete?")
        if array.shape != shape:
            raise ModelError(
                f"`{name}` of `{self.origin}` has shape {list(array.shape)}, its config.json asks for {list(shape)}"
            )
        return array

    def _read(self, name: str, shape: Sequence[int]) -> np.ndarray | None:
        raise NotImplementedError


class Stored(NamedTuple):
    """Where a tensor lies inside a safetensors file."""

    file: Path
    type: str
    shape: list[int]
    offset: int


class Folder(Checkpoint):
    """`config.json` with `model.safetensors`, or with several files of that kind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, read_config(folder / "config.json"))
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ModelError(f"`{folder}` has no *.safetensors file: download the checkpoint in that format")
        self._tensors = {name: stored for file in files for name, stored in _index(file).items()}

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._tensors

    def _read(self, name: str, shape: Sequence[int]) -> np.ndarray | None:
        stored = self._tensors.get(name)
        return None if stored is None else _map(name, stored)


class Built(Checkpoint):
    """An ONNX model of these scripts, whose packed projections are taken apart again."""

    def __init__(self, model: Path) -> None:
        weights, config = stored_weights(model)
        super().__init__(model, config)
        self._tensors = weights

    def _read(self, name: str, shape: Sequence[int]) -> np.ndarray | None:
        return self._tensors.get(name, self._part(name))

    def _part(self, name: str) -> np.ndarray | None:
        """The rows of `q_proj`, `k_proj` or `v_proj` inside the packed `qkv_proj`."""
        for index, part in enumerate(["q_proj", "k_proj", "v_proj"]):
            packed = self._tensors.get(name.replace(part, "qkv_proj"))
            if part in name and packed is not None:
                return np.split(packed, self._boundaries(packed))[index]
        return None

    def _boundaries(self, packed: np.ndarray) -> list[int]:
        queries = self.setting("num_attention_heads")
        keys = self.config.get("num_key_value_heads", queries)
        head = len(packed) // (queries + 2 * keys)
        return [queries * head, (queries + keys) * head]


class Random(Checkpoint):
    """Random weights for a `config.json` alone: enough to measure speed."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, read_config(folder if folder.is_file() else folder / "config.json"))
        self._seed = seed

    def _read(self, name: str, shape: Sequence[int]) -> np.ndarray | None:
        if name.endswith("norm.weight"):
            return np.ones(shape, np.float16)
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        deviation = np.float32(self.config.get("initializer_range", 0.02))
        return (generator.standard_normal(shape, np.float32) * deviation).astype(np.float16)


def open_checkpoint(source: Path, seed: int | None = None) -> Checkpoint:
    """Opens what `source` names; with a seed, only its configuration is read."""
    if seed is not None:
        return Random(source, seed)
    if source.suffix == ".onnx":
        return Built(source)
    return Folder(source)


def read_config(path: Path) -> dict[str, Any]:
    """Reads a `config.json`."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"there is no `{path}`: give a Hugging Face checkpoint folder or a model built from one"
        ) from error
    except ValueError as error:
        raise ModelError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"`{path}` is not a JSON object: take it from the model's own repository")
    return config


def to_fp16(name: str, array: np.ndarray) -> np.ndarray:
    """Rounds weights to half precision; those that do not fit are an error, not infinities."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelError(f"`{name}` has values beyond the range of fp16: this checkpoint needs wider weights")
    return half


def _index(file: Path) -> dict[str, Stored]:
    """The table of contents of a safetensors file: its length in 8 bytes, then JSON, then the tensors."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(content.read(length))
        header.pop("__metadata__", None)
        return {
            name: Stored(file, at["dtype"], at["shape"], 8 + length + at["data_offsets"][0])
            for name, at in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"`{file}` is not a safetensors file: {error}") from error


def _map(name: str, stored: Stored) -> np.ndarray:
    """Maps a tensor into memory, bfloat16 widened to float32."""
    if stored.type not in SAFETENSORS_TYPES:
        raise ModelError(
            f"`{name}` of `{stored.file}` has type {stored.type}: only {', '.join(SAFETENSORS_TYPES)} can be converted"
        )
    dtype = SAFETENSORS_TYPES[stored.type]
    try:
        array = np.memmap(stored.file, dtype, "r", stored.offset, tuple(stored.shape))
    except ValueError as error:
        raise ModelError(f"`{stored.file}` ends before `{name}` does: download it again") from error
    if stored.type == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
