"""Writes llama_int4, llama_int8 and llama_fp32: the tiny Llamas as ONNX Runtime's own tools quantise them, and what they generate.

The tokens in `reference.json` come from a plain loop over `onnxruntime` in Python. Needs `onnxruntime`, `onnx` and `onnx_ir`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

HERE = Path(__file__).parent
PROMPTS = [[5, 9, 11, 13], [3], [7, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]]
TOKENS, BLOCK = 24, 32


def plain(path):
    """The model with float32 weights that lie as `MatMul` takes them, which is what quantisers look for."""
    model = onnx.load(path)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights}
    for output, cast in casts.items():
        array = numpy_helper.to_array(weights[cast.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(array, output))
        graph.node.remove(cast)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    turned = {node.output[0]: node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights}
    for output, node in turned.items():
        _transpose(graph, weights, node.input[0], output)
        graph.node.remove(node)
    for node in graph.node:
        if node.op_type == "FusedMatMul" and node.input[1] in weights:
            transposed = node.input[1] + ".transposed"
            _transpose(graph, weights, node.input[1], transposed)
            del node.attribute[:]
            node.op_type, node.domain, node.input[1] = "MatMul", "", transposed
    read = {name for node in graph.node for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
    return model


def _transpose(graph, weights, name, output):
    if output not in weights:
        array = np.ascontiguousarray(numpy_helper.to_array(weights[name]).T)
        weights[output] = numpy_helper.from_array(array, output)
        graph.initializer.append(weights[output])


def generate(path, prompt):
    """The likeliest tokens, one by one, with a cache that grows."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = [tensor.name for tensor in session.get_outputs()]
    past = {
        name: np.zeros((1, tensor.shape[1], 0, tensor.shape[3]), np.float32)
        for name, tensor in inputs.items()
        if name.startswith("past_key_values.")
    }
    fed, length, tokens = prompt, 0, []
    for _ in range(TOKENS):
        total = length + len(fed)
        given = {"input_ids": np.array([fed]), "attention_mask": np.ones((1, total), np.int64), **past}
        if "position_ids" in inputs:
            given["position_ids"] = np.arange(length, total)[None]
        run = dict(zip(outputs, session.run(None, given)))
        past = {name: run[name.replace("past_key_values", "present")] for name in past}
        fed, length = [int(run["logits"][0, -1].argmax())], total
        tokens += fed
    return tokens


def finish(folder):
    """Writes what the model in a folder generates."""
    cases = [
        {"prompt": "", "input_ids": prompt, "greedy_ids": generate(folder / "model.onnx", prompt)} for prompt in PROMPTS
    ]
    (folder / "reference.json").write_text(json.dumps(cases) + "\n")


def fresh(name):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    return folder


def main():
    fp32 = fresh("llama_fp32")
    onnx.save(plain(HERE / "llama_optimum/model.onnx"), fp32 / "model.onnx")
    finish(fp32)
    int8 = fresh("llama_int8")
    products = {"op_types_to_quantize": ["MatMul"], "weight_type": QuantType.QInt8}
    quantize_dynamic(str(fp32 / "model.onnx"), str(int8 / "model.onnx"), **products)
    finish(int8)
    int4 = fresh("llama_int4")
    quantizer = MatMulNBitsQuantizer(plain(HERE / "llama_gqa/model.onnx"), block_size=BLOCK, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(int4 / "model.onnx"))
    shutil.copy(HERE / "llama_gqa/genai_config.json", int4)
    finish(int4)


if __name__ == "__main__":
    main()
