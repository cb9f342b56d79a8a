"""Generates with a model that `llama_to_onnx.py` built and compares with a `reference.json`.

Shows how each convention is driven, so it doubles as documentation; needs onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

LOGIT_TOLERANCE = {"tensor(float)": 5e-4, "tensor(float16)": 0.1}
"""How far a logit may lie from its reference, by the type the model computes in."""


class Decoder:
    """One row of tokens over a model."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.inputs = {value.name: value for value in session.get_inputs()}
        self.length = 0
        cache = self.inputs["past_key_values.0.key"]
        self.kv_heads, self.head_size = cache.shape[1], cache.shape[3]
        self.dtype = np.float16 if "float16" in cache.type else np.float32

    def step(self, tokens: list[int]) -> np.ndarray:
        """Feeds tokens and returns the logits of the last."""
        raise NotImplementedError

    def empty_cache(self, length: int) -> dict[str, np.ndarray]:
        """A past of `length` for every layer."""
        shape = (1, self.kv_heads, length, self.head_size)
        return {name: np.zeros(shape, self.dtype) for name in self.inputs if name.startswith("past_key_values.")}

    def feeds(self, tokens: list[int]) -> dict[str, np.ndarray]:
        """The inputs beside the cache; the mask covers the past and the new tokens."""
        start, self.length = self.length, self.length + len(tokens)
        feeds = {"input_ids": np.array([tokens], np.int64), "attention_mask": np.ones((1, self.length), np.int64)}
        if "position_ids" in self.inputs:
            feeds["position_ids"] = np.arange(start, self.length, dtype=np.int64)[None]
        return feeds


class SharedBuffer(Decoder):
    """GroupQueryAttention: the same buffer of full length is bound as past and as present."""

    def __init__(self, session: onnxruntime.InferenceSession, max_length: int) -> None:
        super().__init__(session)
        self.binding = session.io_binding()
        self.cache = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(past) for name, past in self.empty_cache(max_length).items()
        }

    def step(self, tokens: list[int]) -> np.ndarray:
        """Binds the buffers, which the operator extends in place."""
        binding = self.binding
        for name, array in self.feeds(tokens).items():
            binding.bind_cpu_input(name, array)
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        names = [value.name for value in self.session.get_outputs()]
        return binding.get_outputs()[names.index("logits")].numpy()[0, -1]


class GrowingCache(Decoder):
    """Optimum: the present of one step is the past of the next; the first past has length 0."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        super().__init__(session)
        self.cache = self.empty_cache(0)
        self.names = [value.name for value in session.get_outputs()]

    def step(self, tokens: list[int]) -> np.ndarray:
        """Hands the cache in and takes the longer one back."""
        outputs = dict(zip(self.names, self.session.run(None, {**self.feeds(tokens), **self.cache})))
        self.cache = {name: outputs[name.replace("past_key_values", "present")] for name in self.cache}
        return outputs["logits"][0, -1]


def decoder_for(session: onnxruntime.InferenceSession, model: Path) -> Decoder:
    """A fresh decoder; a `genai_config.json` beside the model says that its cache is shared."""
    config = model.with_name("genai_config.json")
    if not config.exists():
        return GrowingCache(session)
    return SharedBuffer(session, json.loads(config.read_text(encoding="utf-8"))["search"]["max_length"])


def greedy(decoder: Decoder, prompt: list[int], count: int) -> tuple[np.ndarray, list[int], float]:
    """The logits after the prompt, `count` greedy tokens, and the seconds that decoding them took."""
    first = logits = decoder.step(prompt)
    tokens = [int(logits.argmax())]
    started = time.perf_counter()
    while len(tokens) < count:
        logits = decoder.step(tokens[-1:])
        tokens.append(int(logits.argmax()))
    return first, tokens, time.perf_counter() - started


def compare(case: dict[str, Any], logits: np.ndarray, tokens: list[int], tolerance: float) -> str | None:
    """What differs from the reference, if anything does."""
    for token, expected in case["last_logits_top5"]:
        if abs(float(logits[token]) - expected) > tolerance:
            return f"logit of token {token} is {logits[token]:.5f}, the reference has {expected:.5f}"
    if tokens != case["greedy_ids"]:
        at = next(index for index, pair in enumerate(zip(tokens, case["greedy_ids"])) if pair[0] != pair[1])
        return f"token {at} is {tokens[at]}, the reference has {case['greedy_ids'][at]}"
    return None


def check(options: argparse.Namespace) -> int:
    """Runs every prompt and returns how many differ."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.model), settings, providers=[options.provider])
    tolerance = LOGIT_TOLERANCE[next(value.type for value in session.get_outputs() if value.name == "logits")]
    failures, steps, seconds = 0, 0, 0.0
    for case in json.loads(options.reference.read_text(encoding="utf-8")):
        count = len(case["greedy_ids"])
        logits, tokens, took = greedy(decoder_for(session, options.model), case["input_ids"], count)
        steps, seconds = steps + count - 1, seconds + took
        difference = compare(case, logits, tokens, tolerance)
        failures += difference is not None
        print(f"{'differs: ' + difference if difference else 'same'}: {case['prompt']!r}")
    print(f"{failures} of the prompts differ; {steps / seconds:.0f} tokens/s on {options.threads} thread(s)")
    return failures


def main() -> None:
    """Reads the command line; the exit status is 1 when a prompt differs."""
    parser = argparse.ArgumentParser(description="Generates with an ONNX decoder and compares with a reference.json.")
    parser.add_argument("model", type=Path, help="model.onnx; with genai_config.json beside it its cache is shared")
    parser.add_argument("reference", type=Path, help="reference.json: prompts, greedy_ids and last_logits_top5")
    parser.add_argument("--threads", type=int, default=1, help="threads inside an operator (default 1)")
    parser.add_argument(
        "--provider", default="CPUExecutionProvider", help="execution provider (default CPUExecutionProvider)"
    )
    sys.exit(1 if check(parser.parse_args()) else 0)


if __name__ == "__main__":
    main()
