"""Pads before a pooling, and windows behind the image: what optimizers and shape inference make of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mtl_deploy.export.graph import passes
from mtl_deploy.export.graph.pads import keep_pads, settle_pools
from mtl_deploy.export.graph.sizes import at_size, fix_size
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.graph.variants import serialize
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


BEHIND = [
    (torch.nn.AvgPool2d(2, 2, 1, ceil_mode=True), 0),
    (torch.nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False), 0),
    (torch.nn.MaxPool2d(2, 2, 1, ceil_mode=True), 0),
    (torch.nn.AvgPool2d(2, 4, 1, ceil_mode=True), 0),  # as ONNX has no pads below zero, ceil_mode goes
    (torch.nn.MaxPool2d((3, 1), (2, 4), ceil_mode=True), 0),
    (torch.nn.AvgPool2d((2, 3), 2, (1, 0), ceil_mode=True), 1),  # beside a window that does end behind the image
    (torch.nn.MaxPool2d((2, 3), 2, (1, 0), ceil_mode=True), 1),
]


def traced(pool: torch.nn.Module, height: int, width: int) -> ir.Model:
    torch.manual_seed(0)
    return trace(
        torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), pool, torch.nn.Conv2d(2, 2, 1)).eval(), height, width
    ).model


@pytest.mark.parametrize(("pool", "ceiling"), BEHIND, ids=lambda value: str(value))
def test_a_window_that_would_begin_behind_the_image_is_in_no_shape(pool: torch.nn.Module, ceiling: int) -> None:
    model = traced(pool, 9, 8)
    passes.merge_copies(model)
    passes.clean(model)
    [node] = [node for node in model.graph if node.op_type.endswith("Pool")]
    assert node.attributes.get_int("ceil_mode", 0) == ceiling
    passes.infer_shapes(model)
    content = serialize(model)
    onnx.shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True)
    images = torch.randn(2, 3, 9, 8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), pool, torch.nn.Conv2d(2, 2, 1)).eval()
    with torch.inference_mode():
        wanted = network(images).numpy()
    assert tuple(model.graph.outputs[0].shape or ())[1:] == wanted.shape[1:]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", [torch.nn.MaxPool2d(3, 2, ceil_mode=True), torch.nn.AvgPool2d(2, 2, 1)])
def test_windows_that_begin_in_the_image_stay(pool: torch.nn.Module) -> None:
    model = traced(pool, 10, 8)
    before = ir.to_proto(model).SerializeToString()
    assert settle_pools(model) == 0
    assert ir.to_proto(model).SerializeToString() == before


def test_shapes_made_anew_are_right_behind_several_poolings() -> None:
    pools = [torch.nn.MaxPool2d(2, 2, 1, ceil_mode=True) for _ in range(2)]
    model = traced(torch.nn.Sequential(*pools), 17, 25)  # 9 and 13, then 5 and 7
    counted = at_size(model)
    fix_size(model, 17, 25)
    for found in (counted, model):
        assert [int(side) for side in list(found.graph.outputs[0].shape or ())[2:]] == [5, 7]
