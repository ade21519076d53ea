"""Networks with one value per pixel, from checkpoint to bundle, through the command, with ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dense_networks
import numpy as np
import onnxruntime
import pytest
import torch
from engine_graphs import needs_rtx
from torch.nn import functional

from mtl_deploy.export.cli import main
from mtl_deploy.export.forward.binding import bind_tasks
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

HEIGHT, WIDTH = 96, 64
TASKS = """\
[[task]]
name = "seg"
kind = "segmentation"
labels = ["wall", "floor", "box", "ball", "sky"]
{seg}
[[task]]
name = "depth"
kind = "depth"
unit = "metres"
scale = 2
offset = 3.0
valid_range = [0.5, 2.5]
{depth}
[[task]]
name = "normals"
kind = "normals"
{normals}
"""
Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def run(*arguments: str, network: str = "Scenes", fields: str = "", seg: str = "") -> Path:
        checkpoint, target, tasks = tmp_path / "scenes.pt", tmp_path / "scenes.mtl", tmp_path / "tasks.toml"
        torch.save(getattr(dense_networks, network)().state_dict(), checkpoint)
        own: list[str] = []
        if "--task" not in arguments:
            tasks.write_text(TASKS.format(seg=f"{fields}\n{seg}", depth=fields, normals=fields))
            own = ["--tasks", str(tasks)]
        common = ["--model", f"dense_networks:{network}", "--image-size", f"{HEIGHT}x{WIDTH}", "--threads", "1"]
        if "--engine" not in arguments:
            common += ["--engine", "none"]
        assert main([str(checkpoint), *common, *own, "-q", "-o", str(target), *arguments]) == 0
        return target

    return run


def images(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def run(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": pixels}), strict=True))


def raw(pixels: np.ndarray, network: torch.nn.Module | None = None) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        outputs: Any = (network or dense_networks.Scenes()).eval()(network_input(pixels, Preprocessing(HEIGHT, WIDTH)))
    return dict(outputs)


def up(maps: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)


def test_decoded_graphs_give_classes_depth_and_unit_vectors_at_the_images_size(export: Export) -> None:
    bundle = export("--fit", "letterbox")
    pixels = images()
    outputs = raw(pixels)
    found = run(bundle / "fp32.onnx", pixels)

    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "seg": ("uint8", (2, HEIGHT, WIDTH)),
        "depth": ("float32", (2, HEIGHT, WIDTH)),
        "normals": ("float32", (2, 3, HEIGHT, WIDTH)),
    }
    assert np.mean(found["seg"] == up(outputs["seg"]).argmax(1).numpy()) > 0.9999
    depth = up(2 * outputs["depth"] + 3).clamp(0.5, 2.5)[:, 0].numpy()
    assert {0.5, 2.5} <= set(found["depth"].ravel().tolist()), "the valid range is not put to the test"
    np.testing.assert_allclose(found["depth"], depth, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found["normals"], functional.normalize(up(outputs["normals"])).numpy(), atol=1e-3)

    manifest = open_bundle(bundle).manifest
    assert [(task.size, task.stride) for task in manifest.tasks] == [(5, 4), (1, 4), (3, 4)]
    assert manifest.signature.preprocessing.fit == "letterbox"
    assert {row["artifact"] for row in manifest.verification} >= {"fp32.onnx", "fp16.onnx", "separate/seg.fp16.onnx"}
    rows = {row["task"]: row for row in manifest.verification if row["artifact"] == "fp32.onnx"}
    assert rows["seg"]["agreement"] > 0.9999
    assert rows["depth"]["agreement"] is None
    assert all(row["logit_error"] <= row["logit_tolerance"] for row in rows.values())
    heads = manifest.sharing["multiply_adds"]["heads"]
    plane = HEIGHT // 4 * WIDTH // 4 * 9 * 16
    assert heads == {"seg": 5 * plane, "depth": plane, "normals": 3 * plane}, "the decoder belongs to all"
    kept = next(artifact for artifact in manifest.artifacts if artifact.path == "fp16.onnx").details["kept"]
    assert not {"decode/seg/resize", "decode/seg/argmax"} & set(kept), "what leads to class indices alone may be FP16"
    assert "decode/depth/resize" in kept


def test_a_bundle_holds_how_sure_the_network_is_so_that_engines_are_not_judged_by_near_ties(export: Export) -> None:
    found = reference.read(open_bundle(export("--precision", "fp32", "--no-separate")))
    assert found is not None
    assert found.outputs["seg"].dtype == np.uint8
    assert {name: array.shape[1:] for name, array in found.margins.items()} == {
        "seg": (HEIGHT, WIDTH),
        "normals": (HEIGHT, WIDTH),
    }
    values = np.zeros((1, 3, 1, 1), np.float32)
    values[0, :, 0, 0] = 1.0, 4.0, 2.5
    task = Task("s", "segmentation", size=3, stride=1)
    assert kind_of(task).margins(task, values) == pytest.approx(1.5)


@pytest.mark.parametrize("fields", ["upsample = false", "argmax = false"])
def test_what_a_task_file_leaves_out_stays_out(export: Export, fields: str) -> None:
    seg = fields if fields.startswith("argmax") else ""
    both = "" if seg else fields
    found = run(export("--precision", "fp32", "--no-separate", fields=both, seg=seg) / "fp32.onnx", images())
    if seg:
        assert found["seg"].shape == (2, 5, HEIGHT, WIDTH)
        np.testing.assert_allclose(found["seg"], up(raw(images())["seg"]).numpy(), atol=1e-4)
    else:
        assert {name: array.shape[-2:] for name, array in found.items()} == dict.fromkeys(found, (24, 16))


def test_graphs_of_logits_give_the_networks_own_maps(export: Export) -> None:
    found = run(export("--outputs", "logits", "--precision", "fp32", "--no-separate") / "fp32.onnx", images())
    for name, expected in raw(images()).items():
        np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5)


def test_free_sizes_are_free_and_verified_at_two(export: Export) -> None:
    bundle = export("--dynamic-size", "--precision", "fp32,fp16")
    for size in ((HEIGHT, WIDTH), (32, 160)):
        pixels = images(*size)
        found = run(bundle / "fp32.onnx", pixels)
        assert found["seg"].shape == (2, *size)
        assert np.mean(found["seg"] == up(raw(pixels)["seg"]).argmax(1).numpy()) > 0.9999
        assert run(bundle / "fp16.onnx", pixels)["normals"].shape == (2, 3, *size)
    manifest = open_bundle(bundle).manifest
    assert manifest.signature.preprocessing.multiple == 32
    assert {row["samples"] for row in manifest.verification} == {34}, "32 of the default size, 2 of another"


def test_a_program_with_free_sizes_gives_graphs_of_free_sizes_and_of_one(tmp_path: Path) -> None:
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        dense_networks.Scenes().eval(), (torch.zeros(2, 3, HEIGHT, WIDTH),), dynamic_shapes=(free,)
    )
    source, target = tmp_path / "scenes.pt2", tmp_path / "scenes.mtl"
    torch.export.save(program, source)
    tasks = [part for task in ("seg=segmentation", "depth=depth", "normals=normals") for part in ("--task", task)]
    common = [
        "--image-size",
        f"{HEIGHT}x{WIDTH}",
        "--engine",
        "none",
        "--precision",
        "fp32",
        "--no-separate",
        "-q",
        "-f",
    ]
    for dynamic in (["--dynamic-size"], []):
        assert main([str(source), *common, *tasks, "--threads", "1", "-o", str(target), *dynamic]) == 0
        image = onnxruntime.InferenceSession(target / "fp32.onnx", providers=["CPUExecutionProvider"]).get_inputs()[0]
        assert image.shape[1:3] == (["height", "width"] if dynamic else [HEIGHT, WIDTH])


def test_maps_without_channels_twin_shapes_and_vectors_live_side_by_side(export: Export) -> None:
    tasks = ["far=depth:metres", "place=multiclass", "near=depth:metres"]
    given = [part for task in tasks for part in ("--task", task)]
    found = run(export(*given, "--precision", "fp32", "--no-separate", network="Mixed") / "fp32.onnx", images())
    outputs = raw(images(), dense_networks.Mixed())
    assert list(found) == ["far", "place", "near"]
    for name in ("near", "far"):
        np.testing.assert_allclose(found[name], up(outputs[name][:, None])[:, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found["place"], outputs["place"].softmax(-1).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "arguments", "code", "message"),
    [
        (
            "Odd",
            ["--task", "a=segmentation", "--task", "b=depth"],
            2,
            "the output is 30x41 for 96x64, which is not one whole stride",
        ),
        ("FixedSize", ["--task", "a=segmentation", "--task", "b=depth", "--dynamic-size"], 1, "--dynamic-size"),
        (
            "Pooled",
            ["--task", "a=regression", "--task", "b=depth", "--dynamic-size"],
            1,
            "does not take images of 128x32, beside the default size of 96x64",
        ),
        ("Scenes", ["--dynamic-size", "40"], 2, "must be multiples of 40"),
        ("Scenes", ["--task", "a=multiclass", "--task", "b=depth", "--task", "c=normals"], 2, "a map of 24x16"),
        ("Scenes", [], 2, "--task seg=segmentation --task depth=depth --task normals=normals"),
    ],
    ids=["stride", "fixed", "pooled", "multiple", "kind", "proposal"],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, capsys: Any, network: str, arguments: list[str], code: int, message: str
) -> None:
    checkpoint = tmp_path / "model.pt"
    torch.save(getattr(dense_networks, network)().state_dict(), checkpoint)
    common = ["--model", f"dense_networks:{network}", "--image-size", "96x64", "-o", str(tmp_path), "--engine", "none"]
    assert main([str(checkpoint), *common, "--threads", "1", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_dense_kind_wants_a_map() -> None:
    with pytest.raises(TaskError, match="task 'd' is depth, one map per image"):
        bind_tasks(
            [Task("d", "depth"), Task("m", "multiclass")], None, {"d": torch.zeros(2, 1), "m": torch.zeros(2, 4)}, 2
        )


@needs_rtx
def test_tensorrt_rtx_builds_engines_of_them_at_the_default_size(export: Export) -> None:
    given = ["--engine", "tensorrt-rtx", "--dynamic-size", "--no-separate", "--precision", "fp32,fp16"]
    bundle = export(*given, "--check-target", "jetpack-6.0,tensorrt-rtx-1.7")
    artifacts = json.loads((bundle / "manifest.json").read_text())["artifacts"]
    engines = {artifact["path"]: artifact for artifact in artifacts if artifact["backend"] == "tensorrt"}
    assert set(engines) == {"fp32.rtx.trt", "fp16.rtx.trt"}
    assert {tuple(engine["details"]["image_size"]) for engine in engines.values()} == {(HEIGHT, WIDTH)}
