from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.onnx_format.cut import cut

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


def run(content: bytes) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {session.get_inputs()[0].name: IMAGES}
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize("tasks", [("age",), ("race",), ("age", "race"), ("gender", "race", "age")], ids="+".join)
def test_what_is_kept_computes_what_it_did(make_bundle: Callable[..., Path], tasks: tuple[str, ...]) -> None:
    whole = (make_bundle() / "fp32.onnx").read_bytes()
    part = cut(whole, tasks)

    found, expected = run(part), run(whole)
    assert set(found) == set(tasks)
    for task, values in found.items():
        np.testing.assert_array_equal(values, expected[task])


def test_nodes_and_weights_of_other_tasks_are_gone_and_the_rest_is_as_it_was(make_bundle: Callable[..., Path]) -> None:
    whole = onnx.load(make_bundle() / "fp32.onnx")
    part = onnx.load_from_string(cut(whole.SerializeToString(), ["gender"]))
    onnx.checker.check_model(part, full_check=True)

    assert {node.name for node in part.graph.node if node.op_type == "Gemm"} == {"gender_head"}
    assert {tensor.name for tensor in part.graph.initializer} == {"scale", "gender.weight"}
    assert part.metadata_props == whole.metadata_props
    assert part.opset_import == whole.opset_import
    assert list(part.graph.input) == list(whole.graph.input)


def test_keeping_everything_changes_nothing(make_bundle: Callable[..., Path]) -> None:
    whole = (make_bundle() / "fp32.onnx").read_bytes()
    assert onnx.load_from_string(cut(whole, ["age", "gender", "race"])) == onnx.load_from_string(whole)


def test_what_a_branch_reads_from_outside_is_kept() -> None:
    def branch(name: str, outer: str) -> onnx.GraphProto:
        inner = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Neg", [outer], [name])], name, [], [inner])

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["left"]),
            helper.make_node("Abs", ["x"], ["right"]),
            helper.make_node("Exp", ["x"], ["unused"]),
            helper.make_node("If", ["flag"], ["y"], then_branch=branch("t", "left"), else_branch=branch("e", "right")),
        ],
        "branches",
        [value("x", TensorProto.FLOAT, [2]), value("flag", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, None), value("unused", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    part = onnx.load_from_string(cut(model.SerializeToString(), ["y"]))
    assert [node.op_type for node in part.graph.node] == ["Relu", "Abs", "If"]


@given(st.binary(min_size=1, max_size=60))
def test_other_bytes_are_refused_or_pass_through_but_never_hang(content: bytes) -> None:
    with contextlib.suppress(BundleError, TaskError):
        assert isinstance(cut(content, ["age"]), bytes)
