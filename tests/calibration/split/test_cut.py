"""Where graphs are cut: what all tasks need, what several need, what one needs; nothing is computed twice that costs anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.calibration.split.cut import PartFile, split
from mtl_deploy.runtime import OptionError
from tests.networks.dense_bundle import dense_graph, dense_signature
from tests.networks.split_bundle import PARTS, SIZE, uneven_graph

IMAGES = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def run_whole(content: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_parts(parts: Sequence[PartFile], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    values = dict(feeds)
    for part in parts:
        onnx.checker.check_model(part.content, full_check=True)
        values |= run_whole(part.content, {name: values[name] for name in part.inputs})
    return values


def check(content: bytes, feeds: dict[str, np.ndarray]) -> list[PartFile]:
    """Cut a graph and compare; return the parts."""
    parts = split(content)
    found = run_parts(parts, feeds)
    for name, values in run_whole(content, feeds).items():
        np.testing.assert_array_equal(found[name], values)
    return parts


def operators(part: PartFile) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(part.content).graph.node]


def test_backbone_neck_and_heads() -> None:
    parts = {part.name: part for part in check(uneven_graph(), {"image": IMAGES})}
    assert tuple(sorted(parts, key=PARTS.index)) == PARTS
    assert list(parts)[:2] == ["backbone", "neck-1"]
    backbone, neck = parts["backbone"], parts["neck-1"]
    assert (backbone.inputs, set(backbone.outputs)) == (("image",), {"stage1", "stage2"})
    assert (neck.tasks, set(neck.inputs), neck.outputs) == (("b", "c"), {"stage1", "stage2"}, ("neck",))
    assert {name: parts[f"head-{name}"].inputs for name in "abc"} == {"a": ("stage2",), "b": ("neck",), "c": ("neck",)}
    everything = [node for part in parts.values() for node in part.nodes]
    assert len(set(everything)) == len(everything)  # no node is in two parts
    assert len(everything) == len(onnx.load_from_string(uneven_graph()).graph.node)


def test_weights_are_in_the_parts_that_read_them() -> None:
    held = {
        part.name: {weight.name for weight in onnx.load_from_string(part.content).graph.initializer}
        for part in split(uneven_graph())
    }
    assert held["backbone"] == {"w1", "w2"}
    assert held["neck-1"] == {"low", "high", "scales"}
    assert held["head-c"] == {"deep", "wc"}


@pytest.mark.parametrize("options", [{}, {"multiple": 4}, {"outputs": "logits"}, {"image_input": "float"}], ids=str)
def test_dense_heads(options: dict[str, Any]) -> None:
    signature = dense_signature(**options)
    shape = (2, 36, 52, 3) if signature.preprocessing.input == "uint8" else (2, 3, 36, 52)
    image = (
        np.random.default_rng(1).integers(0, 256, shape).astype(signature.preprocessing.input.replace("float", "f4"))
    )
    parts = check(dense_graph(signature), {"image": image})
    assert parts[0].name == "backbone"
    assert parts[0].outputs == ("features",)
    assert {part.name for part in parts[1:]} == {"head-seg", "head-depth", "head-normals"}


def graph_of(nodes: list[Any], outputs: dict[str, list[Any]], weights: dict[str, np.ndarray], opset: int = 17) -> bytes:
    """Return a graph that takes ``image: (N, 4) float32``."""
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


SQUARE = np.random.default_rng(2).standard_normal((4, 4)).astype(np.float32)
FEEDS = {"image": np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)}
node: Callable[..., Any] = helper.make_node


def test_what_costs_nothing_and_only_some_tasks_need_is_no_part() -> None:
    nodes = [
        node("MatMul", ["image", "w"], ["shared"]),
        node("Relu", ["shared"], ["some"]),
        node("Mul", ["some", "two"], ["a"]),
        node("Neg", ["some"], ["b"]),
        node("Exp", ["shared"], ["c"]),
    ]
    weights = {"w": SQUARE, "two": np.array(2, np.float32)}
    parts = check(graph_of(nodes, {name: ["batch", 4] for name in "abc"}, weights), FEEDS)
    assert parts[0].name == "backbone"
    assert parts[0].outputs == ("shared",)
    assert {part.name: operators(part) for part in parts[1:]} == {
        "head-a": ["Relu", "Mul"],
        "head-b": ["Relu", "Neg"],
        "head-c": ["Exp"],
    }


def test_a_task_that_another_one_reads_has_no_head_of_its_own() -> None:
    nodes = [
        node("MatMul", ["image", "w"], ["features"]),
        node("MatMul", ["features", "v"], ["a"]),
        node("MatMul", ["a", "u"], ["b"]),
        node("Neg", ["features"], ["c"]),
    ]
    weights = {"w": SQUARE, "v": SQUARE.T.copy(), "u": SQUARE[::-1].copy()}
    parts = {part.name: part for part in check(graph_of(nodes, {name: ["batch", 4] for name in "abc"}, weights), FEEDS)}
    assert set(parts) == {"backbone", "neck-1", "head-b", "head-c"}
    assert (parts["neck-1"].tasks, parts["neck-1"].outputs) == (("a", "b"), ("a",))
    assert parts["head-b"].inputs == ("a",)


def test_shapes_and_constants_are_not_cut_but_computed_again() -> None:
    nodes = [
        node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
        node("Add", ["half", "half"], ["one"]),
        node("MatMul", ["image", "w"], ["features"]),
        node("Shape", ["features"], ["shape"]),
        node("Reshape", ["features", "shape"], ["same"]),
        node("Mul", ["same", "one"], ["a"]),
        node("Expand", ["one", "shape"], ["ones"]),
        node("Sub", ["features", "ones"], ["b"]),
    ]
    parts = check(graph_of(nodes, {name: ["batch", 4] for name in "ab"}, {"w": SQUARE}), FEEDS)
    assert parts[0].outputs == ("features",)
    assert all(part.inputs == ("features",) for part in parts[1:])
    assert all("Constant" in operators(part) and "Shape" in operators(part) for part in parts[1:])


def test_int8_tensors_cross_as_int8() -> None:
    weights = {"w": SQUARE, "scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    nodes = [
        node("MatMul", ["image", "w"], ["features"]),
        node("QuantizeLinear", ["features", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("Relu", ["d"], ["a"]),
        node("Neg", ["d"], ["b"]),
    ]
    parts = check(graph_of(nodes, {name: ["batch", 4] for name in "ab"}, weights), FEEDS)
    assert parts[0].outputs == ("q",)
    assert {part.name: operators(part) for part in parts[1:]} == {
        "head-a": ["DequantizeLinear", "Relu"],
        "head-b": ["DequantizeLinear", "Neg"],
    }


def test_sums_of_integer_products_cross_and_other_integers_do_not() -> None:
    weights = {"w": (SQUARE * 30).astype(np.int8), "scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
    nodes = [
        node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        node("MatMulInteger", ["q", "w"], ["sums"]),
        node("Cast", ["sums"], ["long"], to=TensorProto.INT64),
        node("Cast", ["long"], ["a"], to=TensorProto.FLOAT),
        node("Abs", ["long"], ["positive"]),
        node("Cast", ["positive"], ["b"], to=TensorProto.FLOAT),
    ]
    parts = check(graph_of(nodes, {name: ["batch", 4] for name in "ab"}, weights), FEEDS)
    assert parts[0].outputs == ("sums",)
    assert all(operators(part)[0] == "Cast" for part in parts[1:])


def test_a_layer_is_never_computed_twice_for_want_of_a_type() -> None:
    nodes = [
        node("Cast", ["image"], ["double"], to=TensorProto.DOUBLE),
        node("MatMul", ["double", "w"], ["features"], name="shared"),
        node("Cast", ["features"], ["a"], to=TensorProto.FLOAT),
        node("Neg", ["features"], ["negative"]),
        node("Cast", ["negative"], ["b"], to=TensorProto.FLOAT),
    ]
    content = graph_of(nodes, {name: ["batch", 4] for name in "ab"}, {"w": SQUARE.astype(np.float64)})
    with pytest.raises(OptionError, match="'features', which MatMul 'shared' gives to several tasks, is double"):
        split(content)


def test_what_a_branch_reads_crosses_too() -> None:
    def branch(operator: str) -> Any:
        one = helper.make_tensor_value_info(f"{operator}_out", TensorProto.FLOAT, ["batch", 4])
        return helper.make_graph([node(operator, ["features"], [f"{operator}_out"])], operator, [], [one])

    nodes = [
        node("MatMul", ["image", "w"], ["features"]),
        node("ReduceMax", ["image"], ["most"], keepdims=0),
        node("Greater", ["most", "least"], ["high"]),
        node("If", ["high"], ["a"], then_branch=branch("Relu"), else_branch=branch("Neg")),
        node("Neg", ["features"], ["b"]),
    ]
    weights = {"w": SQUARE, "least": np.array(0, np.float32)}
    parts = {part.name: part for part in check(graph_of(nodes, {n: ["batch", 4] for n in "ab"}, weights), FEEDS)}
    assert set(parts["head-a"].inputs) == {"image", "features"}


def test_tasks_that_share_nothing_are_refused() -> None:
    nodes = [node("Neg", ["image"], ["n"]), node("MatMul", ["n", "w"], ["a"]), node("MatMul", ["n", "v"], ["b"])]
    content = graph_of(nodes, {name: ["batch", 4] for name in "ab"}, {"w": SQUARE, "v": SQUARE.T.copy()})
    with pytest.raises(OptionError, match="share no layer with weights"):
        split(content)


def test_one_task_is_refused() -> None:
    content = graph_of([node("MatMul", ["image", "w"], ["a"])], {"a": ["batch", 4]}, {"w": SQUARE})
    with pytest.raises(OptionError, match="one task"):
        split(content)


def test_tasks_in_pairs() -> None:
    nodes = [
        node("MatMul", ["image", "w"], ["left"]),
        node("MatMul", ["image", "v"], ["right"]),
        *(node(op, [source], [task]) for op, source, task in (("Neg", "left", "a"), ("Relu", "left", "b"))),
        *(node(op, [source], [task]) for op, source, task in (("Neg", "right", "c"), ("Relu", "right", "d"))),
    ]
    content = graph_of(nodes, {name: ["batch", 4] for name in "abcd"}, {"w": SQUARE, "v": SQUARE.T.copy()})
    parts = check(content, FEEDS)
    assert [(part.tasks, part.inputs) for part in parts if part.name.startswith("neck")] == [
        (("a", "b"), ("image",)),
        (("c", "d"), ("image",)),
    ]
