"""Masks from a checkpoint to a bundle: what the graphs give, and that no wrong graph passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from engine_graphs import needs_rtx
from mask_networks import ACTIVATIONS, CHANNELS, THRESHOLDS, Masks
from torch.nn.functional import interpolate

from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.export.cli import main
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.tolerances import GRAPHS
from mtl_deploy.export.verification.expected import run_network
from mtl_deploy.export.verification.verify import verify, with_logits
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

SIDE = 64
TASKS = [f"{name}=mask:other,{name};threshold={threshold}" for name, threshold in THRESHOLDS.items()]


def export(folder: Path, *arguments: str) -> Path:
    torch.save(Masks().state_dict(), folder / "masks.pt")
    target = folder / "masks.mtl"
    given = [part for text in TASKS for part in ("--task", text)]
    common = ["--model", "mask_networks:Masks", "--image-size", f"{SIDE}x{SIDE}", "--threads", "1"]
    common += [] if "--engine" in arguments else ["--engine", "none"]
    assert main([str(folder / "masks.pt"), *common, *given, "-q", "-o", str(target), *arguments]) == 0
    return target


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("masks"), "--check-target", "jetpack-5.1,tensorrt-rtx-1.7")


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def meant(name: str, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        raw = Masks().eval()(network_input(images, Preprocessing(SIDE, SIDE)))[name]
    values = interpolate(raw, scale_factor=4, mode="bilinear", align_corners=False).double()
    if name == "two":
        return values.argmax(1).numpy()
    if name in ("area", "logs"):
        return (values.softmax(1)[:, 1] >= THRESHOLDS[name]).numpy()
    return ((values[:, -1].sigmoid() if name == "lane" else values[:, -1]) >= THRESHOLDS[name]).numpy()


def test_graphs_give_the_masks_that_the_network_means(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert {task.name: task.activation for task in manifest.tasks} == ACTIVATIONS  # found in the graph
    assert {task.name: (task.size, task.stride) for task in manifest.tasks} == {n: (c, 4) for n, c in CHANNELS.items()}
    images = pixels()
    session = onnxruntime.InferenceSession(bundle / "fp32.onnx", providers=["CPUExecutionProvider"])
    found = dict(zip(CHANNELS, session.run(list(CHANNELS), {"image": images}), strict=True))
    for name in CHANNELS:
        wanted = meant(name, images)
        assert (found[name].dtype, found[name].shape) == (np.uint8, (3, SIDE, SIDE))
        assert 0.02 < wanted.mean() < 0.98, "the threshold is not put to the test"
        assert (found[name] == wanted).mean() > 0.9999
        with load(bundle / "separate" / f"{name}.onnx") as model:
            np.testing.assert_array_equal(model(images)[name], found[name])
    rows = {row["task"]: row for row in manifest.verification if row["artifact"] == "fp32.onnx"}
    assert all(rows[name]["agreement"] > 0.9999 for name in CHANNELS)
    assert all(rows[name]["logit_error"] <= rows[name]["logit_tolerance"] for name in CHANNELS)


def test_what_is_compared_stays_fp32_in_an_fp16_graph(bundle: Path) -> None:
    model = onnx.load(bundle / "fp16.onnx")
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    compared = [node for node in model.graph.node if node.op_type == "GreaterOrEqual"]
    assert len(compared) == len(CHANNELS)
    levels = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in compared:
        assert types[node.input[0]] == onnx.TensorProto.FLOAT
        assert levels[node.input[1]] == onnx.TensorProto.FLOAT
    images = pixels()
    with load(bundle / "fp16.onnx") as half:
        found = half(images)
    assert all((found[name] == meant(name, images)).mean() > 0.99 for name in CHANNELS)


def test_graphs_of_logits_are_decoded_to_the_same_masks(bundle: Path, tmp_path: Path) -> None:
    raw = export(tmp_path, "--outputs", "logits", "--precision", "fp32", "--no-separate")
    photo = np.random.default_rng(8).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    with load(bundle) as inside, load(raw) as outside:
        for one, other in zip(inside.predict(list(pixels())), outside.predict(list(pixels())), strict=True):
            assert all((one[name].value == other[name].value).mean() > 0.9999 for name in CHANNELS)
        for name, prediction in outside.predict(photo).items():
            assert prediction.value.shape == inside.predict(photo)[name].value.shape == (50, 90)


def test_the_reference_for_engines_holds_margins(bundle: Path) -> None:
    found = reference.read(open_bundle(bundle))
    assert found is not None
    assert {name: array.shape[1:] for name, array in found.margins.items()} == dict.fromkeys(CHANNELS, (SIDE, SIDE))
    of = Task("m", "mask", size=2, stride=1, threshold=0.5)
    kind, raw = kind_of(of), np.array([[[[1.0]], [[3.5]]]], np.float32)
    assert kind.margins(of, raw) == pytest.approx(2.5)
    right, wrong, strange = (np.full((1, 1, 1), value, np.uint8) for value in (1, 0, 7))
    assert kind.lost(of, right, right, raw) == 0
    assert kind.lost(of, wrong, right, raw) == pytest.approx(2.5)
    assert kind.lost(of, strange, right, raw) == np.inf
    assert kind.lost_margin(of, wrong, right, np.full((1, 1, 1), 2.5, np.float16)) == pytest.approx(2.5)
    assert kind.lost_margin(of, strange, right, np.zeros((1, 1, 1), np.float16)) == np.inf


def _level(model: onnx.ModelProto, name: str, factor: float) -> None:
    (tensor,) = (each for each in model.graph.initializer if each.name == f"decode.{name}.level")
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array((value + np.float32(factor)).astype(np.float32), tensor.name))


def _node(model: onnx.ModelProto, name: str, word: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == f"decode/{name}/{word}")


def a_threshold_off_by_a_hundredth(model: onnx.ModelProto, name: str) -> None:
    _level(model, name, 0.01)


def less_instead_of_more(model: onnx.ModelProto, name: str) -> None:
    _node(model, name, "compare").op_type = "LessOrEqual"


def the_other_channel(model: onnx.ModelProto, name: str) -> None:
    node = _node(model, name, "difference")
    first, second = node.input
    node.input[:] = [second, first]


def the_nearest_pixel(model: onnx.ModelProto, name: str) -> None:
    for attribute in _node(model, name, "resize").attribute:
        if attribute.name == "mode":
            attribute.s = b"nearest"


def corners_aligned(model: onnx.ModelProto, name: str) -> None:
    for attribute in _node(model, name, "resize").attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"align_corners"


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        *((a_threshold_off_by_a_hundredth, name) for name in CHANNELS),
        *((less_instead_of_more, name) for name in ("lane", "shares")),
        *((the_other_channel, name) for name in ("area", "two")),
        *((step, "lane") for step in (the_nearest_pixel, corners_aligned)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_graph_does_not_pass(bundle: Path, mistake: Callable[[onnx.ModelProto, str], None], name: str) -> None:
    def passed(model: onnx.ModelProto) -> bool:
        signature = Signature((open_bundle(bundle).manifest.signature.task(name),), Preprocessing(SIDE, SIDE))
        images = pixels(8)

        expected = run_network(Masks().eval(), signature, images, None)
        with closing(FrugalBackend(with_logits(model.SerializeToString(), signature), threads=1)) as backend:
            rows = verify("fp32.onnx", backend, signature, [(images, expected)], tolerance=GRAPHS["fp32"], batch=None)
        return all(row.passed for row in rows)

    model = onnx.load(bundle / "separate" / f"{name}.onnx")
    assert passed(model)
    mistake(model, name)
    assert not passed(model)


def test_sizes_may_be_free_and_maps_may_stay_small(tmp_path: Path) -> None:
    texts = ["lane=mask:lane;upsample=false", "area=mask"]
    torch.save(Masks().state_dict(), tmp_path / "masks.pt")
    given: list[Any] = [part for text in texts for part in ("--task", text)]
    common = ["--model", "mask_networks:Masks", "--image-size", "64x64", "--threads", "1", "--engine", "none", "-q"]
    more = ["--dynamic-size", "32", "--precision", "fp32", "--no-separate", "-o", str(tmp_path / "a.mtl")]
    assert main([str(tmp_path / "masks.pt"), *common, *given, *more]) == 0
    with load(tmp_path / "a.mtl") as model:
        image = np.random.default_rng(1).integers(0, 256, (1, 96, 32, 3), dtype=np.uint8)
        found = model(image)
        assert (found["lane"].shape, found["area"].shape) == ((1, 24, 8), (1, 96, 32))
        assert model.predict(image[0])["lane"].value.shape == (96, 32)
    tasks = json.loads((tmp_path / "a.mtl" / "manifest.json").read_text())["signature"]["tasks"]
    assert tasks[0]["labels"] == ["lane"]


@needs_rtx
def test_tensorrt_rtx_builds_engines_of_masks(tmp_path: Path) -> None:
    bundle = export(tmp_path, "--engine", "tensorrt-rtx", "--no-separate", "--check-target", "jetpack-6.0")
    engines = {item.path for item in open_bundle(bundle).manifest.artifacts if item.backend == "tensorrt"}
    assert engines == {"fp32.rtx.trt", "fp16.rtx.trt"}
