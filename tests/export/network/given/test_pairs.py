"""Q/DQ pairs come off a graph: what is left computes what the float network does, and the ranges are those of the pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from mtl_deploy.export.cli import main
from mtl_deploy.export.network.given.pairs import without_pairs


class Images(CalibrationDataReader):
    def __init__(self, name: str, images: np.ndarray[Any, Any]) -> None:
        self.left = [{name: images[place : place + 1]} for place in range(len(images))]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


IMAGES = np.random.default_rng(1).normal(size=(8, 3, 32, 32)).astype(np.float32)


def run(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {session.get_inputs()[0].name: IMAGES})
    return found


@pytest.fixture(scope="module")
def float_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    network = small_networks.Shared().eval()
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, 32, 32),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    program.save(path)
    return path


@pytest.mark.parametrize("symmetric", [True, False], ids=["s8", "u8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["channels", "tensor"])
def test_onnx_runtimes_pairs_come_off(symmetric: bool, per_channel: bool, float_graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "quantized.onnx"
    name = onnx.load(float_graph).graph.input[0].name
    quantize_static(
        float_graph,
        path,
        Images(name, IMAGES),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    quantized = onnx.load(path)
    before = quantized.SerializeToString()
    found = without_pairs(quantized)
    assert quantized.SerializeToString() == before
    onnx.checker.check_model(found.model, full_check=True)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in found.model.graph.node}
    assert len(found.ranges) >= 4
    assert found.weights >= 5
    expected, rounded = run(onnx.load(float_graph)), run(quantized)
    for one, reference, quantized_one in zip(run(found.model), expected, rounded, strict=True):
        spread = float(np.ptp(reference))
        assert np.abs(one - reference).max() < 0.05 * spread + 0.02  # weights are rounded to 8 bits
        assert np.abs(one - reference).max() <= np.abs(quantized_one - reference).max() + 0.02


def pair(name: str, scale: float, zero: int, kind: type) -> tuple[list[Any], list[Any]]:
    held = [
        onnx.numpy_helper.from_array(np.float32(scale), f"{name}_scale"),
        onnx.numpy_helper.from_array(np.asarray(zero, kind), f"{name}_zero"),
    ]
    nodes = [
        onnx.helper.make_node("QuantizeLinear", [name, held[0].name, held[1].name], [f"{name}_q"]),
        onnx.helper.make_node("DequantizeLinear", [f"{name}_q", held[0].name, held[1].name], [f"{name}_dq"]),
    ]
    return nodes, held


def graph(nodes: list[Any], held: list[Any]) -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info
    shape = ["batch", 3, 32, 32]
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 4, 30, 30])],
        held,
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


def trained(*, activation: bool) -> tuple[onnx.ModelProto, np.ndarray[Any, Any]]:
    """As pytorch-quantization and ModelOpt export: pairs on the input and on float weights; ``activation``: one for a Relu too."""
    weight = np.random.default_rng(2).normal(size=(4, 3, 3, 3)).astype(np.float32)
    before, held = pair("x", 0.04, 0, np.int8)
    scales = onnx.numpy_helper.from_array(np.abs(weight).max((1, 2, 3)) / np.float32(127), "w_scale")
    zeros = onnx.numpy_helper.from_array(np.zeros(4, np.int8), "w_zero")
    weights = [
        onnx.helper.make_node("QuantizeLinear", ["w", "w_scale", "w_zero"], ["w_q"], axis=0),
        onnx.helper.make_node("DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w_dq"], axis=0),
    ]
    after, more = pair("c", 0.05, 0, np.uint8) if activation else ([], [])
    last = onnx.helper.make_node("Identity" if activation else "Relu", ["c_dq" if activation else "c"], ["y"])
    nodes = [*before, *weights, onnx.helper.make_node("Conv", ["x_dq", "w_dq"], ["c"]), *after, last]
    return graph(nodes, [*held, scales, zeros, *more, onnx.numpy_helper.from_array(weight, "w")]), weight


def test_trained_weights_stay_as_they_are() -> None:
    model, weight = trained(activation=False)
    found = without_pairs(model)
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Relu"]
    assert np.array_equal(onnx.numpy_helper.to_array(found.model.graph.initializer[0]), weight)
    assert found.ranges["x"] == pytest.approx((-128 * 0.04, 127 * 0.04))
    assert len(found.ranges) == 1
    onnx.checker.check_model(found.model, full_check=True)


def test_a_relu_that_the_quantizer_dropped_comes_back() -> None:
    model, _ = trained(activation=True)
    found = without_pairs(model)
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Clip", "Identity"]
    assert found.ranges["c/clipped"] == pytest.approx((0.0, 255 * 0.05))
    (values,), (rounded,) = run(found.model), run(model)
    assert values.min() == 0
    assert np.abs(values - rounded).max() < 1.0
    assert np.abs(values - rounded).mean() < 0.1


def two_pairs(scale: float) -> onnx.ModelProto:
    """A tensor with two pairs from zero, and with names that a Clip and its ends would get."""
    weight = onnx.numpy_helper.from_array(np.random.default_rng(2).normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    others = [
        onnx.numpy_helper.from_array(np.float32(number), name) for name, number in (("bound 0.0", 3), ("c/clipped", 5))
    ]
    first, held = pair("c", 0.01, 0, np.uint8)
    second, more = pair("c", scale, 0, np.uint8)
    for place, node in enumerate(second):
        node.output[0] += "2"
        node.input[:] = ["c_q2" if place else "c", "scale2", "zero2"]
    more[0].name, more[1].name = "scale2", "zero2"
    last = [
        onnx.helper.make_node("Mul", ["c_dq", "bound 0.0"], ["three"]),
        onnx.helper.make_node("Mul", ["c_dq2", "c/clipped"], ["five"]),
        onnx.helper.make_node("Sub", ["three", "five"], ["y"]),
    ]
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["c"]), *first, *second, *last]
    return graph(nodes, [*held, *more, weight, *others])


@pytest.mark.parametrize("scale", [0.01, 0.004])
def test_two_pairs_on_one_tensor_come_off_both(scale: float) -> None:
    model = two_pairs(scale)
    found = without_pairs(model)
    onnx.checker.check_model(found.model, full_check=True)
    clips = [node.output[0] for node in found.model.graph.node if node.op_type == "Clip"]
    assert len(clips) == (1 if scale == 0.01 else 2)
    assert sorted(high for low, high in found.ranges.values()) == pytest.approx(sorted({255 * scale, 255 * 0.01}))
    (values,), (rounded,) = run(found.model), run(model)
    assert np.ptp(rounded) > 4
    assert np.abs(values - rounded).max() < 0.05  # half a step of each, three and five times


def test_two_pairs_on_one_tensor_leave_the_range_that_holds_both() -> None:
    model = two_pairs(0.004)
    for tensor in model.graph.initializer:
        if tensor.name == "zero2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.uint8(55), "zero2"))
        if tensor.name == "c_zero":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.uint8(128), "c_zero"))
    assert without_pairs(model).ranges == {"c": pytest.approx((-1.28, 1.27))}


@pytest.mark.parametrize(
    ("between", "kept"),
    [
        (("Resize", {"mode": "cubic"}), False),
        (("Resize", {"mode": "linear"}), True),
        (("Resize", {"mode": "nearest"}), True),
        (("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": -1.0}), False),
        (("MaxPool", {"kernel_shape": [1, 1]}), True),
        (("MaxPool", {"kernel_shape": [1, 1], "domain": "own"}), False),  # which may be anything
    ],
    ids=str,
)  # fmt: skip
def test_what_is_behind_a_relu_is_clipped_where_it_can_fall_below_zero(between: Any, kept: bool) -> None:
    nodes, held = pair("c", 0.01, 0, np.uint8)
    op_type, attributes = between
    inputs = ["r", "roi", "scales"] if op_type == "Resize" else ["r"]
    made = [
        onnx.helper.make_node("Relu", ["x"], ["r"]),
        onnx.helper.make_node(op_type, inputs, ["c"], **attributes),
        *nodes,
        onnx.helper.make_node("Identity", ["c_dq"], ["y"]),
    ]
    held += [
        onnx.numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "scales"),
        onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32), "roi"),
    ]
    found = without_pairs(graph(made, held))
    assert ("Clip" in [node.op_type for node in found.model.graph.node]) == (not kept)


def test_what_is_not_a_pair_stays() -> None:
    model, _ = trained(activation=False)
    del model.graph.node[1:]
    model.graph.node.extend([onnx.helper.make_node("Cast", ["x_q"], ["y"], to=onnx.TensorProto.FLOAT)])
    found = without_pairs(model)
    assert [node.op_type for node in found.model.graph.node] == ["QuantizeLinear", "Cast"]
    assert not found.ranges


def test_a_quantized_graph_becomes_a_bundle_with_its_ranges(float_graph: Path, tmp_path: Path) -> None:
    path, images = tmp_path / "quantized.onnx", tmp_path / "images"
    name = onnx.load(float_graph).graph.input[0].name
    scale = 5.0  # images of larger contrast than those that the bundle is calibrated on
    quantize_static(float_graph, path, Images(name, IMAGES * scale), extra_options={"ActivationSymmetric": True})
    images.mkdir()
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(images / f"{number:02}.png")
    tasks = ("--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass")
    int8 = ("--calibration-data", str(images), "--calibration-method", "minmax", "--precision", "fp32,int8")
    options = ("--image-size", "32x32", "--no-separate", "-q", "-o", str(tmp_path / "model.mtl"))
    assert main([str(path), *tasks, *int8, *options]) == 0
    manifest = json.loads((tmp_path / "model.mtl" / "manifest.json").read_text())
    assert any(note.startswith("the given graph is quantized") for note in manifest["provenance"]["notes"])
    found = json.loads((tmp_path / "model.mtl" / "calibration.json").read_text())["ranges"]["tensorrt"]["minmax"]
    held = {round(high, 5) for _, high in without_pairs(onnx.load(path)).ranges.values()}
    kept = [tensor for tensor, (_, high) in found.items() if round(high, 5) in held]
    assert manifest["calibration"]["ranges"].endswith(
        f"{len(kept)} of {len(found)} tensors keep the range that the network was trained with"
    )
    assert len(kept) >= 2
