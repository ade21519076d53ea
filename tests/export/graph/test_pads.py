"""Pads before a pooling: what optimizers make of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mtl_deploy.export.graph import passes
from mtl_deploy.export.graph.pads import keep_pads
from mtl_deploy.export.verification.optimizer import culprit

LEVELS = onnxruntime.GraphOptimizationLevel
IMAGE = np.full((1, 1, 4, 4), -1, np.float32)


def padded_pool(op_type: str = "MaxPool", dtype: int = TensorProto.FLOAT, *, twice: bool = False) -> onnx.ModelProto:
    """Return a Pad of zeros by 1 at the end, then a pool of 3x3 with stride 2."""
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2]} | ({"ceil_mode": 1} if op_type == "AveragePool" else {})
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"], mode="constant"),
        helper.make_node(op_type, ["padded"], ["y"], **attributes),
        *([helper.make_node("Neg", ["padded"], ["z"])] if twice else []),
    ]
    values = [helper.make_tensor_value_info("y", dtype, ["N", 1, "h", "w"])]
    values += [helper.make_tensor_value_info("z", dtype, ["N", 1, 5, 5])] if twice else []
    pads = helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 0, 0, 0, 0, 1, 1])
    image = helper.make_tensor_value_info("x", dtype, ["N", 1, 4, 4])
    graph = helper.make_graph(nodes, "g", [image], values, [pads])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, level: object = LEVELS.ORT_ENABLE_ALL) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0]
    return np.asarray(session.run(["y"], {"x": IMAGE.astype(np.float16 if "16" in name.type else np.float32)})[0])


def kept(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = ir.from_proto(model)
    assert keep_pads(changed) == 1
    return ir.to_proto(changed)


@pytest.mark.parametrize("level", [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL])
@pytest.mark.parametrize("twice", [False, True])
def test_zeros_win_over_negative_values_whatever_is_optimized(level: object, twice: bool) -> None:
    found = run(kept(padded_pool(twice=twice)), level)
    np.testing.assert_array_equal(found.ravel(), [-1, 0, 0, 0])


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_optimized_and_not_are_the_same(op_type: str) -> None:
    model = kept(padded_pool(op_type))
    want = run(padded_pool(op_type), LEVELS.ORT_DISABLE_ALL)
    np.testing.assert_array_equal(run(model), want)
    np.testing.assert_array_equal(run(model, LEVELS.ORT_ENABLE_EXTENDED), want)


def test_a_graph_without_the_trap_stays_as_it_is() -> None:
    model = ir.from_proto(padded_pool())
    del_pad = next(node for node in model.graph if node.op_type == "MaxPool")
    del_pad.replace_input_with(0, model.graph.inputs[0])
    before = len(list(model.graph))
    assert keep_pads(model) == 0
    assert len(list(model.graph)) == before


def test_cleaning_a_graph_keeps_its_pads() -> None:
    model = ir.from_proto(padded_pool())
    passes.clean(model)
    assert [node.op_type for node in model.graph] == ["Pad", "Clip", "MaxPool"]
    np.testing.assert_array_equal(run(ir.to_proto(model)).ravel(), [-1, 0, 0, 0])


def test_the_optimizer_that_changes_a_graph_is_named() -> None:
    content = padded_pool().SerializeToString()
    if run(padded_pool()).ravel().tolist() == [-1, 0, 0, 0]:
        pytest.skip("this ONNX Runtime no longer folds a Pad of zeros into MaxPool")
    right = culprit(content, {"x": IMAGE}, lambda values: values[0].ravel().tolist() == [-1, 0, 0, 0])
    assert right == "Pad_Fusion"
    assert culprit(content, {"x": IMAGE}, lambda values: False) is None
