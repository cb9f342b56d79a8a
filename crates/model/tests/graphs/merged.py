"""Writes merged.onnx, unmerged.onnx and slow_decoder.onnx: a decoder that adds up its tokens, with and without a branch for its first
step, and one that takes a tenth of a second for each token it is fed.

The other graphs here come from `crates/xtask/python`: the small ones from `tiny_models.py`, the folders `llama_*` from
`llama_to_onnx.py --random 7` with a config.json of 2 layers, hidden 32, 2 heads and 1 key/value head of 16, 64 tokens and a context of 64;
from that model, `llama_lora` and `llama_lora_optimum` with `--adapter one=1 --adapter two=2`, `llama_merged_one` and `llama_merged_two` with
`--merge 1` and `--merge 2`.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

VOCABULARY, HEAD = 16, 4
WIDTH, ROUNDS = 256, 400
METADATA = '{{"max_position_embeddings": {}, "vocab_size": {}, "eos_token_id": null}}'


def value(name, element, shape):
    return helper.make_tensor_value_info(name, element, shape)


def constant(name, numbers):
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers))


def present(kind, joins):
    """The new tokens as [batch, 1, sequence, HEAD], behind the past when `joins`."""
    nodes = [
        constant(f"axes_{kind}_{joins}", [1, 3]),
        helper.make_node("Cast", ["input_ids"], [f"float_{kind}_{joins}"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [f"float_{kind}_{joins}", f"axes_{kind}_{joins}"], [f"wide_{kind}_{joins}"]),
        helper.make_node("Concat", [f"wide_{kind}_{joins}"] * HEAD, [f"new_{kind}_{joins}"], axis=3),
    ]
    inputs = [f"past_key_values.0.{kind}"] if joins else []
    nodes.append(helper.make_node("Concat", [*inputs, f"new_{kind}_{joins}"], [f"joined_{kind}_{joins}"], axis=2))
    return nodes, f"joined_{kind}_{joins}"


def branch(joins):
    parts = [present(kind, joins) for kind in ("key", "value")]
    outputs = [value(output, TensorProto.FLOAT, ["batch", 1, "total", HEAD]) for _, output in parts]
    return helper.make_graph([node for nodes, _ in parts for node in nodes], f"branch_{joins}", [], outputs)


def logits():
    """Largest at the sum of all tokens, so far as there are that many tokens."""
    return [
        constant("tokens", list(range(VOCABULARY))),
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        constant("summed", [1, 2, 3]),
        helper.make_node("ReduceSum", ["present.0.value", "summed"], ["sum"], keepdims=0),
        constant("last", [1, 2]),
        helper.make_node("Unsqueeze", ["sum", "last"], ["columns"]),
        helper.make_node("Constant", [], ["share"], value_float=float(HEAD * VOCABULARY)),
        helper.make_node("Constant", [], ["size"], value_float=float(HEAD)),
        helper.make_node("Mod", ["columns", "share"], ["left"], fmod=1),
        helper.make_node("Div", ["left", "size"], ["wanted"]),
        helper.make_node("Sub", ["numbers", "wanted"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["far"]),
        helper.make_node("Neg", ["far"], ["logits"]),
    ]


def slow():
    """Nothing, after as many rounds of a square product as the tokens are worth; any of them may be the last."""
    square = [WIDTH, WIDTH]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next_state"]),
            helper.make_node("Identity", ["condition"], ["next_condition"]),
        ],
        "round",
        [value("round", TensorProto.INT64, []), value("condition", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, square)],
        [value("next_condition", TensorProto.BOOL, []), value("next_state", TensorProto.FLOAT, square)],
    )
    return [
        constant("square", square),
        helper.make_node("ConstantOfShape", ["square"], ["matrix"], value=helper.make_tensor("entry", TensorProto.FLOAT, [1], [2 / WIDTH])),
        helper.make_node("Size", ["input_ids"], ["fed"]),
        helper.make_node("Constant", [], ["worth"], value_int=ROUNDS),
        helper.make_node("Mul", ["fed", "worth"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "", "matrix"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["whole"], keepdims=0),
        helper.make_node("Constant", [], ["nothing"], value_float=0.0),
        helper.make_node("Mul", ["whole", "nothing"], ["late"]),
        helper.make_node("Add", ["prompt_logits", "late"], ["logits"]),
    ]


def model(merged, is_slow=False):
    cache = ["batch", 1, "past", HEAD]
    inputs = [
        value("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        value("past_key_values.0.key", TensorProto.FLOAT, cache),
        value("past_key_values.0.value", TensorProto.FLOAT, cache),
    ]
    names = ["present.0.key", "present.0.value"]
    if merged:
        inputs.append(value("use_cache_branch", TensorProto.BOOL, [1]))
        nodes = [helper.make_node("If", ["use_cache_branch"], names, then_branch=branch(True), else_branch=branch(False))]
    else:
        parts = [present(kind, True) for kind in ("key", "value")]
        nodes = [node for part, _ in parts for node in part]
        nodes += [helper.make_node("Identity", [output], [name]) for name, (_, output) in zip(names, parts)]
    outputs = [value("logits", TensorProto.FLOAT, ["batch", "rows", VOCABULARY])]
    outputs += [value(name, TensorProto.FLOAT, ["batch", 1, "total", HEAD]) for name in names]
    scores = logits()
    if is_slow:
        scores[-1].output[0] = "prompt_logits"
        scores += slow()
    graph = helper.make_graph(nodes + scores, "adder", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.add(key="config.json", value=METADATA.format(128 if is_slow else 64, VOCABULARY))
    onnx.checker.check_model(made)
    return made


for merged in (True, False):
    name = "merged.onnx" if merged else "unmerged.onnx"
    onnx.save(model(merged), Path(__file__).with_name(name))
onnx.save(model(merged=False, is_slow=True), Path(__file__).with_name("slow_decoder.onnx"))
