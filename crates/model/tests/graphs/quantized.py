"""Writes llama_int4, llama_int8 and llama_fp32: the tiny Llamas as ONNX Runtime's own tools quantise them.

What they generate is not written down: it depends on the processor, so the tests compare with a plain loop of their own
(`plain.rs`). Needs `onnxruntime`, `onnx` and `onnx_ir`.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

HERE = Path(__file__).parent
BLOCK = 32


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


def fresh(name):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    return folder


def main():
    fp32 = fresh("llama_fp32")
    onnx.save(plain(HERE / "llama_optimum/model.onnx"), fp32 / "model.onnx")
    int8 = fresh("llama_int8")
    products = {"op_types_to_quantize": ["MatMul"], "weight_type": QuantType.QInt8}
    quantize_dynamic(str(fp32 / "model.onnx"), str(int8 / "model.onnx"), **products)
    int4 = fresh("llama_int4")
    quantizer = MatMulNBitsQuantizer(plain(HERE / "llama_gqa/model.onnx"), block_size=BLOCK, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(int4 / "model.onnx"))
    shutil.copy(HERE / "llama_gqa/genai_config.json", int4)


if __name__ == "__main__":
    main()
