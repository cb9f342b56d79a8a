"""Prints what onnxruntime-genai makes of a model on one thread: tokens a second of one request, and useful tokens a second of many in static batches.

Usage: genai.py MODEL_FOLDER ROWS TOKENS LENGTH,LENGTH,…
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

PROMPT = 16


def folder_of(source, directory):
    """The model with one thread, as the other contender has it, and no token that ends a text."""
    for file in source.iterdir():
        (directory / file.name).symlink_to(file.resolve())
    config = json.loads((source / "genai_config.json").read_text())
    options = config["model"]["decoder"].setdefault("session_options", {})
    options.update({"intra_op_num_threads": 1, "inter_op_num_threads": 1})
    config["model"]["eos_token_id"] = config["model"]["vocab_size"] - 1
    (directory / "genai_config.json").unlink()
    (directory / "genai_config.json").write_text(json.dumps(config))
    return directory


def prompt(seed, row):
    """The tokens that the other contender's request has."""
    return [5 + (seed * 997 + row * 131 + place * 17) % 4000 for place in range(PROMPT)]


def generate(model, prompts, tokens):
    """Generates so many tokens behind each prompt; gives how many runs that took."""
    params = genai.GeneratorParams(model)
    params.set_search_options(
        batch_size=len(prompts), max_length=PROMPT + tokens, do_sample=False
    )
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array(prompts, dtype=np.int32))
    runs = 0
    while not generator.is_done() and runs < tokens:
        generator.generate_next_token()
        runs += 1
    return runs


def rate(count, work):
    """Tokens a second."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def main(folder, rows, tokens, lengths):
    """Measures both."""
    rows, tokens = int(rows), int(tokens)
    lengths = [int(length) for length in lengths.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        model = genai.Model(str(folder_of(Path(folder), Path(directory))))
        generate(model, [prompt(0, row) for row in range(rows)], 16)
        one = rate(tokens, lambda: generate(model, [prompt(1, 0)], tokens))

        def static():
            # A batch is as long as its longest; what the others do meanwhile is thrown away.
            for start in range(0, len(lengths), rows):
                batch = lengths[start : start + rows]
                prompts = [prompt(6, start + row) for row in range(len(batch))]
                runs = generate(model, prompts, max(batch))
                assert runs >= max(batch), (runs, max(batch))

        print(one, rate(sum(lengths), static))


if __name__ == "__main__":
    main(*sys.argv[1:])
