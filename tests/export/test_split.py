"""``--split``: backbone, neck and heads of a real export, equal to the whole, quantized and built as engines."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engine_graphs import needs_rtx
from split_networks import Uneven, Windows

from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.split import measured, stage
from mtl_deploy.export.cli import main
from mtl_deploy.runtime import OptionError, load
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Part, open_bundle
from mtl_deploy.runtime.errors import VerificationError

SIZE = (32, 64)
TASKS = ("kind", "size", "seg", "depth")
FORMS = ("kind=multiclass", "size=regression", "seg=segmentation", "depth=depth:metres")
NAMES = ("backbone", "neck-1", *(f"head-{task}" for task in TASKS))
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def arguments(checkpoint: Path, target: Path, *more: str) -> list[str]:
    tasks = [word for form in FORMS for word in ("--task", form)]
    common = ["--model", "split_networks:Uneven", "--image-size", f"{SIZE[0]}x{SIZE[1]}", "--threads", "1", "--split"]
    return [str(checkpoint), *common, *tasks, "--no-separate", "-o", str(target), *more]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("split") / "uneven.pth"
    torch.save(Uneven().state_dict(), file)
    return file


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle in parts, and what the export printed."""
    target = tmp_path_factory.mktemp("split") / "a.mtl"
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(arguments(checkpoint, target, "--engine", "none", "-q")) == 0
    return target, printed.getvalue()


def by_name(bundle: Path, precision: str, backend: str = "onnxruntime") -> dict[str, Part]:
    parts = open_bundle(bundle).manifest.parts
    own = [part for part in parts if (part.precision, part.backend) == (precision, backend)]
    return {Path(part.path).name.partition(".")[0]: part for part in own}


def test_every_precision_is_cut_alike(exported: tuple[Path, str]) -> None:
    bundle, _ = exported
    manifest = open_bundle(bundle).manifest
    for precision in ("fp32", "fp16"):
        parts = by_name(bundle, precision)
        assert set(parts) == set(NAMES)
        assert (parts["neck-1"].tasks, len(parts["neck-1"].inputs)) == (("seg", "depth"), 4)  # skip connections
        assert sum(part.multiply_adds for part in parts.values()) == manifest.sharing["multiply_adds"]["shared"]
        assert sum(part.parameters for part in parts.values()) == manifest.sharing["parameters"]["shared"]
    crossing = {precision: by_name(bundle, precision)["neck-1"].outputs[0].dtype for precision in ("fp32", "fp16")}
    assert crossing == {"fp32": "float32", "fp16": "float16"}


def test_the_parts_give_what_the_whole_gives(exported: tuple[Path, str]) -> None:
    bundle, _ = exported
    with load(bundle, threads=1) as whole, load(bundle, threads=1, split=True) as model:
        expected = whole(IMAGES)
        for tasks in (TASKS, ("kind",), ("depth",), ("seg", "size")):
            for name, values in model(IMAGES, tasks=tasks).items():
                np.testing.assert_array_equal(values, expected[name])
    assert open_bundle(bundle).manifest.sharing["cut"]["fp32"]["exact"] is True


def test_costs_and_interface_are_printed(exported: tuple[Path, str]) -> None:
    _, out = exported
    line = next(line for line in out.splitlines() if line.startswith("split/fp32/backbone.onnx"))
    stages = 4 * sum(8 * 2**stage * (SIZE[0] >> stage + 1) * (SIZE[1] >> stage + 1) for stage in range(4))
    assert line.split()[-2:] == [f"{stages / 1e3:,.0f}", "4"]
    assert "split/fp32: equal to fp32.onnx to the bit; all parts take " in out
    assert "times the whole's processor time" in out
    assert "split/fp16: equal to fp16.onnx" in out


def with_swapped_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cutter turn the filters of one layer around in the head of ``seg``."""
    cut = stage.split

    def swapped(content: bytes) -> list[stage.PartFile]:
        parts = cut(content)
        place = next(number for number, part in enumerate(parts) if part.name == "head-seg")
        model = onnx.load_from_string(parts[place].content)
        weight = next(each for each in model.graph.initializer if list(each.dims) == [16, 16, 3, 3])
        values = onnx.numpy_helper.to_array(weight)[::-1].copy()
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        parts[place] = replace(parts[place], content=model.SerializeToString())
        return parts

    monkeypatch.setattr(stage, "split", swapped)


def test_a_swapped_weight_is_noticed(exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(exported[0])
    preprocessing, costs = bundle.manifest.signature.preprocessing, stage.costs_of(bundle.manifest.parts)
    for artifact in bundle.manifest.artifacts:
        stage.cut_graph(bundle.read(artifact), artifact, preprocessing, [IMAGES], costs, threads=1)
    with_swapped_weight(monkeypatch)
    for artifact in bundle.manifest.artifacts:
        with pytest.raises(VerificationError, match=rf"split/{artifact.precision}/head-seg\.onnx: the weight '"):
            stage.cut_graph(bundle.read(artifact), artifact, preprocessing, [IMAGES], costs, threads=1)


@pytest.mark.extended
def test_a_swapped_weight_ends_the_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_swapped_weight(monkeypatch)
    target = tmp_path / "a.mtl"
    assert main(arguments(checkpoint, target, "--engine", "none", "--precision", "fp32", "-q")) == 1
    assert "split/fp32/head-seg.onnx: the weight" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.extended
def test_a_transformer_whose_batch_is_folded(tmp_path: Path) -> None:
    torch.save(Windows().state_dict(), tmp_path / "a.pth")
    tasks = [word for form in ("a=multiclass", "b=regression", "c=multiclass") for word in ("--task", form)]
    words = [
        "--model",
        "split_networks:Windows",
        "--image-size",
        "32x32",
        "--split",
        "--no-separate",
        "--engine",
        "none",
    ]
    target = tmp_path / "a.mtl"
    assert main([str(tmp_path / "a.pth"), *words, *tasks, "--threads", "1", "-q", "-o", str(target)]) == 0
    manifest = open_bundle(target).manifest
    parts = by_name(target, "fp32")
    assert set(parts) == {"backbone", "neck-1", "head-a", "head-b", "head-c"}
    assert sum(part.multiply_adds for part in parts.values()) == manifest.sharing["multiply_adds"]["shared"]
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with load(target) as whole, load(target, split=True) as model:
        expected = whole(images)
        for name, values in model(images).items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.extended
def test_a_precision_whose_parts_do_not_agree_stays_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("_NOISE_16", "_SHARE_16", "_CLASSES_16"):
        monkeypatch.setattr(measured, name, 0.0)
    monkeypatch.setattr(measured, "_FLOORS", 0.0)
    target = tmp_path / "a.mtl"
    assert main(arguments(checkpoint, target, "--engine", "none", "-q")) == 0
    assert "fp16.onnx is not split: the parts of fp16.onnx differ from it" in capsys.readouterr().err
    manifest = open_bundle(target).manifest
    assert {part.precision for part in manifest.parts} == {"fp32"}
    assert "differ from it" in manifest.provenance["left_out"]["split fp16"]
    load(target, precision="fp16").close()
    with pytest.raises(OptionError, match=r"fp16\.onnx has no parts"):
        load(target, precision="fp16", split=True)


def test_one_task_is_refused_before_the_long_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "split_networks:Uneven", "--image-size", "32x64", "--task", "kind=multiclass;output=kind"]
    assert main([str(checkpoint), *words, "--split", "-o", str(tmp_path / "a.mtl")]) == 2
    said = capsys.readouterr().err
    assert "the network has one task, so there is no backbone to split heads from" in said
    assert "Verifying" not in said


def test_a_bundle_takes_no_split(exported: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    bundle, _ = exported
    assert main([str(bundle), "--split", "--engine", "none"]) == 2
    assert "--split has no effect" in capsys.readouterr().err


@pytest.fixture(scope="module")
def quantized(exported: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(1)
    coarse = rng.normal(120, 40, (24, SIZE[0] // 8, SIZE[1] // 8, 3)).repeat(8, 1).repeat(8, 2)
    np.save(folder / "images.npy", np.clip(coarse + rng.normal(0, 15, coarse.shape), 0, 255).astype(np.uint8))
    words = ["--calibration-data", str(folder / "images.npy"), "-o", str(folder / "a.mtl"), "--threads", "1", "-q"]
    assert calibrate([str(exported[0]), *words]) == 0
    return folder / "a.mtl"


@pytest.mark.extended
def test_int8_graphs_are_cut_too(quantized: Path) -> None:
    manifest = open_bundle(quantized).manifest
    for precision in ("int8", "int8-cpu"):
        parts = by_name(quantized, precision)
        assert set(parts) == set(NAMES)
        assert any(border.dtype in ("int8", "uint8") for border in parts["backbone"].outputs)
        assert {name: part.multiply_adds for name, part in parts.items()} == {
            name: part.multiply_adds for name, part in by_name(quantized, "fp32").items()
        }
    assert manifest.sharing["cut"]["int8-cpu"]["exact"] is True
    with (
        load(quantized, precision="int8", threads=1, backend="onnxruntime") as whole,  # as the parts
        load(quantized, precision="int8", threads=1, split=True) as model,
    ):
        expected = whole(IMAGES)
        for name, values in model(IMAGES).items():
            np.testing.assert_array_equal(values, expected[name])
    assert set(by_name(quantized, "fp32")) == set(NAMES)


@pytest.mark.extended
@needs_rtx
def test_engines_of_the_parts_are_built(quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.mtl"
    words = ["--batch", "1:2:4", "--precision", "fp16,int8", "--engine", "tensorrt-rtx", "-o", str(target), "-q"]
    assert main([str(quantized), *words]) == 0
    for precision in ("fp16", "int8"):
        parts = by_name(target, precision, "tensorrt")
        graphs = by_name(target, precision)
        assert set(parts) == set(NAMES)
        for name, part in parts.items():
            record = EngineRecord.from_details(part.details, part.path)
            assert (part.batch_min, record.batch_opt, part.batch_max) == (1, 2, 4)
            assert (record.source, record.source_sha256) == (graphs[name].path, graphs[name].sha256)
            assert (part.inputs, part.outputs) == (graphs[name].inputs, graphs[name].outputs)
            assert len(open_bundle(target).read(part)) == part.size_bytes
    assert by_name(target, "fp32", "tensorrt") == {}
    assert "split/fp16: 6 engines; " in capsys.readouterr().out
    assert json.loads((target / "manifest.json").read_text())["parts"][0]["role"] == "part"
