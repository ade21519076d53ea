"""Keypoints from a checkpoint to a bundle: what the graphs give, and that no wrong graph passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from engine_graphs import needs_rtx
from pose_networks import Pose

from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.export.cli import main
from mtl_deploy.export.forward.binding import bind_tasks
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
from mtl_deploy.runtime.errors import MtlError, TaskError
from mtl_deploy.runtime.kinds.keypoints.heatmaps import points_of
from mtl_deploy.runtime.kinds.keypoints.options import KeypointOptions

SIDE = 64
PEAKS = "points=keypoints:nose,left,right,hip,foot;skeleton=nose-left,nose-right"
MEANS = "means=keypoints;decoding=soft-argmax;beta=2"


def export(folder: Path, *arguments: str) -> Path:
    torch.save(Pose().state_dict(), folder / "pose.pt")
    target = folder / "pose.mtl"
    given = [part for text in (PEAKS, MEANS, "stands=binary") for part in ("--task", text)]
    common = ["--model", "pose_networks:Pose", "--image-size", f"{SIDE}x{SIDE}", "--threads", "1"]
    common += [] if "--engine" in arguments else ["--engine", "none"]
    assert main([str(folder / "pose.pt"), *common, *given, "-q", "-o", str(target), *arguments]) == 0
    return target


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("pose"), "--check-target", "jetpack-5.1,tensorrt-rtx-1.7")


def pixels(count: int = 6, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def heatmaps(images: np.ndarray, name: str = "points") -> np.ndarray:
    with torch.inference_mode():
        return Pose().eval()(network_input(images, Preprocessing(SIDE, SIDE)))[name].numpy()


def test_graphs_give_the_points_of_the_networks_heatmaps(bundle: Path) -> None:
    images = pixels()
    manifest = open_bundle(bundle).manifest
    tasks = {task.name: task for task in manifest.tasks}
    assert (tasks["points"].size, tasks["points"].stride) == (5, 4)
    session = onnxruntime.InferenceSession(bundle / "fp32.onnx", providers=["CPUExecutionProvider"])
    assert [list(output.shape[1:]) for output in session.get_outputs()] == [[5, 3], [5, 3], [1]]
    found = dict(zip(tasks, session.run(list(tasks), {"image": images}), strict=True))
    for name in ("points", "means"):
        wanted = points_of(tasks[name], heatmaps(images, name))
        np.testing.assert_allclose(found[name], wanted, atol=1e-3)
        with load(bundle / "separate" / f"{name}.onnx") as model:
            np.testing.assert_allclose(model(images)[name], wanted, atol=1e-3)
    moved = found["points"][..., :2] / 4 % 1
    assert {0.0, 0.25, 0.75} <= set(moved.ravel().tolist()), "moving by a quarter is not put to the test"
    rows = {row["task"]: row for row in manifest.verification if row["artifact"] == "fp32.onnx"}
    assert all(rows[name]["logit_error"] <= rows[name]["logit_tolerance"] for name in ("points", "means"))


def test_heatmaps_and_what_follows_stay_fp32_in_an_fp16_graph(bundle: Path) -> None:
    model = onnx.load(bundle / "fp16.onnx")
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    halves = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    assert halves, "nothing is FP16"
    for node in model.graph.node:
        if node.op_type in ("TopK", "Softmax", "GatherElements"):
            assert node.input[0] not in halves
            assert node.output[0] not in halves
    kept = next(one for one in open_bundle(bundle).manifest.artifacts if one.path == "fp16.onnx").details["kept"]
    assert sum(reason.startswith("last weighted layer of a head") for reason in kept.values()) == 3, kept
    images = pixels()
    task = open_bundle(bundle).manifest.signature.task("points")
    with load(bundle / "fp16.onnx") as half:
        found = half(images)["points"]
    away = np.abs(found - points_of(task, heatmaps(images)))
    assert np.median(away[..., :2]) == 0
    assert (away[..., :2].max(axis=2) <= 4).mean() > 0.9


def test_graphs_of_heatmaps_are_decoded_to_the_same_points(bundle: Path, tmp_path: Path) -> None:
    raw = export(tmp_path, "--outputs", "logits", "--precision", "fp32", "--no-separate")
    photo = np.random.default_rng(8).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    with load(bundle) as inside, load(raw) as outside:
        assert outside(pixels())["points"].shape == (6, 5, 16, 16)
        one, other = inside.predict(photo), outside.predict(photo)
    for name in ("points", "means"):
        np.testing.assert_allclose(one[name].value.points, other[name].value.points, atol=1e-3)
        np.testing.assert_allclose(one[name].value.scores, other[name].value.scores, atol=1e-4)


def test_sizes_may_be_free(tmp_path: Path) -> None:
    target = export(tmp_path, "--dynamic-size", "4", "--precision", "fp32", "--no-separate")
    images = pixels(2, 48, 96)
    with load(target) as model:
        found = model(images)
    for name in ("points", "means"):
        wanted = points_of(open_bundle(target).manifest.signature.task(name), heatmaps(images, name))
        np.testing.assert_allclose(found[name], wanted, atol=1e-3)


def _constant(model: onnx.ModelProto, word: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (tensor,) = (each for each in model.graph.initializer if each.name.endswith(f".{word}"))
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(value).astype(value.dtype), tensor.name))


def _node(model: onnx.ModelProto, word: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name.endswith(f"/{word}"))


def _swapped(word: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = _node(model, word)
        node.input[0], node.input[1] = node.input[1], node.input[0]

    change.__name__ = f"{word} swapped"
    return change


def _scaled(word: str, factor: float, plus: float = 0.0) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        _constant(model, word, lambda value: value * factor + plus)

    change.__name__ = f"{word} changed"
    return change


def lowest(model: onnx.ModelProto) -> None:
    _node(model, "highest").attribute.append(onnx.helper.make_attribute("largest", 0))


PEAK_MISTAKES = (
    _swapped("position"),
    _swapped("rise"),
    _scaled("pixels", 1.01),
    _scaled("quarter.factor", 0.0),
    _scaled("quarter.factor", 2.0),
    _scaled("rows_away", -1.0),
    _scaled("columns_away", -1.0),
    _scaled("half", 0.0, 0.5 + 1),
    lowest,
)
MEAN_MISTAKES = (_swapped("at"), _scaled("pixels", 1.01), _scaled("beta.factor", 1.02), _scaled("by_x", 2.0))


@pytest.mark.parametrize(
    ("mistake", "name"),
    [*((mistake, "points") for mistake in PEAK_MISTAKES), *((mistake, "means") for mistake in MEAN_MISTAKES)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_graph_does_not_pass(bundle: Path, mistake: Callable[[onnx.ModelProto], None], name: str) -> None:
    signature = Signature((open_bundle(bundle).manifest.signature.task(name),), Preprocessing(SIDE, SIDE))
    images = pixels(8)

    def passed(model: onnx.ModelProto) -> bool:
        expected = run_network(Pose().eval(), signature, images, None)
        try:
            with closing(FrugalBackend(with_logits(model.SerializeToString(), signature), threads=1)) as backend:
                rows = verify(
                    "fp32.onnx", backend, signature, [(images, expected)], tolerance=GRAPHS["fp32"], batch=None
                )
        except MtlError:  # nothing runs it
            return False
        return all(row.passed for row in rows)

    model = onnx.load(bundle / "separate" / f"{name}.onnx")
    assert passed(model)
    mistake(model)
    assert not passed(model)


def test_the_reference_for_engines_holds_margins_that_wrong_points_cost(bundle: Path) -> None:
    found = reference.read(open_bundle(bundle))
    assert found is not None
    assert set(found.margins) == {"points"}
    of = Task("p", "keypoints", size=1, stride=4)
    kind = kind_of(of)
    raw = np.zeros((1, 1, 8, 8), np.float32)
    raw[0, 0, 4, 4], raw[0, 0, 4, 5], raw[0, 0, 3, 4], raw[0, 0, 1, 1] = 4, 3, 2, 1
    wanted = points_of(of, raw)
    np.testing.assert_array_equal(wanted, [[[17, 15, 4]]])
    margins = kind.margins(of, raw)
    np.testing.assert_array_equal(margins, [[[2, 1, 3]]])  # 0 and 2 above and below; 3 beside the peak; 1 elsewhere

    def costs(x: float, y: float, score: float = 4.0) -> tuple[list[float], list[float]]:
        point = np.array([[[x, y, score]]], np.float32)
        exact = kind.lost(of, point, wanted, raw).ravel().tolist()
        return exact, kind.lost_margin(of, point, wanted, margins).ravel().tolist()

    assert costs(17, 15) == ([0, 0, 0], [0, 0, 0])
    assert costs(15, 15) == ([3, 0, 0], [2, 0, 0])  # moved the other way along x
    assert costs(16, 17) == ([3, 2, 0], [2, 2, 0])
    assert costs(17, 15, 3.5) == ([0, 0, 0.5], [0, 0, 0.5])
    beside, far = costs(19, 16), costs(4, 4)
    assert min(beside[0][:2]) == 1
    assert beside[1][0] == 1
    assert min(far[0][:2]) == 3
    assert far[1][0] == 3
    for strange in ((17.5, 15), (-4, 16), (400, 16), (np.nan, 15)):
        exact, _ = costs(*strange)
        assert exact[0] == np.inf
    assert kind.lost_margin(of, np.full_like(wanted, np.nan), wanted, margins).min() == np.inf


def test_coordinates_are_not_heatmaps() -> None:
    with pytest.raises(
        TaskError, match=r"one heatmap per point .* if these are coordinates, declare it vector or regression"
    ):
        bind_tasks([Task("p", "keypoints")], None, {"p": torch.zeros(2, 10)}, 2)


def test_one_heatmap_without_an_axis_of_points() -> None:
    of = Task("p", "keypoints", options=KeypointOptions())
    assert kind_of(of).as_task(of, torch.zeros(2, 8, 8), (2, 8, 8)).shape == (2, 1, 8, 8)


@needs_rtx
def test_tensorrt_rtx_builds_engines_of_them(tmp_path: Path) -> None:
    bundle = export(tmp_path, "--engine", "tensorrt-rtx", "--no-separate", "--precision", "fp32,fp16")
    assert {path.name for path in bundle.glob("*.trt")} == {"fp32.rtx.trt", "fp16.rtx.trt"}
