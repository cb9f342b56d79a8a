"""Compares `embed` with the same model run by tokenizers and onnxruntime in Python: cosine ≥ 0.99999.

Usage: embeddings.py GRPC_ADDRESS MODEL_REPOSITORY
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tritonclient.grpc as grpc
from tokenizers import Tokenizer

WORDS = "ownership is a set of rules that govern how a program manages memory while it runs".split()
SENTENCES = [" ".join(WORDS[: 1 + i % len(WORDS)]) + f" number {i}" for i in range(50)]


def expected(repository):
    """The unit vectors that Python computes, one sentence at a time."""
    tokenizer = Tokenizer.from_file(str(repository / "minilm_tokenize/1/tokenizer.json"))
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(str(repository / "minilm/1/model.onnx"))
    for sentence in SENTENCES:
        encoding = tokenizer.encode(sentence)
        feeds = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
            "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
        }
        mean = session.run(None, feeds)[0][0].mean(axis=0)
        yield mean / np.linalg.norm(mean)


def embed(client, sentences):
    """The vectors that the server gives."""
    text = grpc.InferInput("text", [len(sentences), 1], "BYTES")
    text.set_data_from_numpy(np.array([[s.encode()] for s in sentences], dtype=np.object_))
    return client.infer("embed", [text]).as_numpy("embedding")


def main():
    client = grpc.InferenceServerClient(sys.argv[1])
    vectors = np.stack(list(expected(Path(sys.argv[2]))))
    batched = embed(client, SENTENCES)
    alone = np.concatenate([embed(client, [sentence]) for sentence in SENTENCES])
    for name, found in (("batched", batched), ("alone", alone)):
        cosines = (found * vectors).sum(axis=1)
        assert cosines.min() > 0.99999, (name, cosines.min())


main()
