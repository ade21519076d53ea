"""ArgMax over classes on the real OpenVINO: the same answers as ONNX, ties included, in the form that fits the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.runtime import OptionError
from mtl_deploy.runtime.backends.openvino.backend import OpenVinoBackend
from mtl_deploy.runtime.backends.openvino.graph import Graph

pytest.importorskip("openvino")

RNG = np.random.default_rng(0)
CLASSES = 19


def graph_file(nodes: list[Any], shape: list[Any], rank: int, weights: dict[str, np.ndarray]) -> bytes:
    """Return a graph from ``image`` to the scores and to ``classes``, their ArgMax."""
    outputs = [
        helper.make_tensor_value_info("classes", TensorProto.INT64, [f"c{i}" for i in range(rank)]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", *(f"s{i}" for i in range(3))]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


CONV = helper.make_node("Conv", ["image", "w", "b"], ["a"], pads=[1, 1, 1, 1])
RESIZE = helper.make_node("Resize", ["a", "", "x4"], ["scores"], mode="linear")
WEIGHTS = {
    "w": np.tile(RNG.standard_normal((10, 5, 3, 3)), (2, 1, 1, 1))[:CLASSES].astype(
        np.float32
    ),  # most classes come twice
    "b": np.tile(RNG.standard_normal(10), 2)[:CLASSES].astype(np.float32),
    "x4": np.array([1, 1, 4, 4], np.float32),
    "scale": np.array([[[1.37]]], np.float32),
}
FORMS = {
    "convolution": ([helper.make_node("Conv", ["image", "w", "b"], ["scores"], pads=[1, 1, 1, 1])], 1),
    "convolution and ReLU": ([CONV, helper.make_node("Relu", ["a"], ["scores"])], 1),
    "convolution, sigmoid, scale and shift": (
        [
            CONV,
            helper.make_node("Sigmoid", ["a"], ["s"]),
            helper.make_node("Mul", ["s", "scale"], ["m"]),
            helper.make_node("Add", ["m", "scale"], ["scores"]),
        ],
        1,
    ),
    "resize": ([CONV, RESIZE], 1),
    "last axis": ([CONV, helper.make_node("Transpose", ["a"], ["scores"], perm=[0, 2, 3, 1])], 3),
    "last axis, counted from the end": (
        [CONV, helper.make_node("Transpose", ["a"], ["scores"], perm=[0, 2, 3, 1])],
        -1,
    ),
}


def argmax(axis: int, **attributes: int) -> Any:
    return helper.make_node("ArgMax", ["scores"], ["classes"], axis=axis, **attributes)


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the types of the nodes of every model that is read."""
    seen: list[str] = []
    read = Graph._read

    def noting(self: Graph, content: bytes | None = None) -> Any:
        model = read(self, content)
        seen.extend(node.get_type_name() for node in model.get_ordered_ops())
        return model

    monkeypatch.setattr(Graph, "_read", noting)
    return seen


@pytest.mark.parametrize(
    "shape", [[1, 5, 9, 7], ["N", 5, 9, 7], ["N", 5, "H", "W"]], ids=["fixed", "free batch", "free sizes"]
)
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_the_first_of_equal_classes_is_the_answer(form: str, keepdims: int, shape: list[Any], types: list[str]) -> None:
    nodes, axis = FORMS[form]
    file = graph_file([*nodes, argmax(axis, keepdims=keepdims)], shape, 3 + keepdims, WEIGHTS)
    backend = OpenVinoBackend(lambda: file)
    image = np.random.default_rng(1).integers(-2, 3, (1 if shape[0] == 1 else 2, 5, 9, 7)).astype(np.float32)

    found = backend.run({"image": image}, ["classes", "scores"])
    alone = backend.run({"image": image}, ["classes"])

    scores = found["scores"]
    ties = (scores == scores.max(axis, keepdims=True)).sum(axis) > 1
    assert ties.mean() > 0.5, "few pixels have two classes with the largest score: nothing is tested"
    expected = scores.argmax(axis, keepdims=bool(keepdims))
    for classes in (found["classes"], alone["classes"]):
        assert classes.dtype == np.int64
        np.testing.assert_array_equal(classes, expected)
    assert "TopK" not in types
    assert "ReduceMax" in types


def test_the_last_of_equal_classes_where_the_graph_says_so(types: list[str]) -> None:
    nodes, axis = FORMS["convolution"]
    file = graph_file([*nodes, argmax(axis, select_last_index=1)], [1, 5, 9, 7], 4, WEIGHTS)
    image = np.random.default_rng(1).integers(-2, 3, (1, 5, 9, 7)).astype(np.float32)

    found = OpenVinoBackend(lambda: file).run({"image": image}, ["classes", "scores"])

    expected = CLASSES - 1 - found["scores"][:, ::-1].argmax(1, keepdims=True)
    np.testing.assert_array_equal(found["classes"], expected)
    assert types


def test_classes_as_planes_of_memory_keep_topk(types: list[str]) -> None:
    relu = helper.make_node("Relu", ["image"], ["scores"])
    file = graph_file([relu, argmax(1)], [2, 5, 9, 7], 4, {})
    image = np.random.default_rng(1).integers(-2, 3, (2, 5, 9, 7)).astype(np.float32)

    found = OpenVinoBackend(lambda: file).run({"image": image}, ["classes", "scores"])

    np.testing.assert_array_equal(found["classes"], found["scores"].argmax(1, keepdims=True))
    assert "TopK" in types


def test_the_largest_scores_themselves_and_several_of_them_keep_topk(types: list[str]) -> None:
    nodes, axis = FORMS["convolution"]
    topk = helper.make_node("TopK", ["scores", "two"], ["", "classes"], axis=axis)
    file = graph_file([*nodes, topk], [1, 5, 9, 7], 4, {**WEIGHTS, "two": np.array([2], np.int64)})
    image = np.random.default_rng(1).standard_normal((1, 5, 9, 7)).astype(np.float32)

    found = OpenVinoBackend(lambda: file).run({"image": image}, ["classes", "scores"])

    expected = np.argsort(-found["scores"], axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(found["classes"], expected)
    assert "TopK" in types


@pytest.mark.parametrize("arithmetic", ["f32", "bf16"])
def test_many_classes_are_told_apart_in_any_arithmetic(arithmetic: str, types: list[str]) -> None:
    many = 1000
    weights = {
        "w": np.zeros((many, 5, 1, 1), np.float32),
        "b": np.zeros(many, np.float32),
    }
    weights["b"][300] = 1
    conv = helper.make_node("Conv", ["image", "w", "b"], ["scores"])
    file = graph_file([conv, argmax(1)], [1, 5, 9, 7], 4, weights)
    try:
        backend = OpenVinoBackend(lambda: file, arithmetic=arithmetic)
    except OptionError as error:
        pytest.skip(str(error))

    found = backend.run({"image": np.zeros((1, 5, 9, 7), np.float32)}, ["classes"])

    assert (found["classes"] == 300).all()
    assert ("TopK" in types) == (arithmetic != "f32")


def test_scores_that_are_no_numbers_give_a_class_that_there_is() -> None:
    nodes, axis = FORMS["convolution"]
    file = graph_file([*nodes, argmax(axis)], [1, 5, 9, 7], 4, WEIGHTS)
    image = np.full((1, 5, 9, 7), np.nan, np.float32)

    found = OpenVinoBackend(lambda: file).run({"image": image}, ["classes"])

    assert found["classes"].min() >= 0
    assert found["classes"].max() < CLASSES
