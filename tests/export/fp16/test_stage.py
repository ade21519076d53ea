"""FP16 that a network does not bear, from the command line: more layers in FP32, or a bundle without FP16 that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loud_networks
import numpy as np
import onnx
import pytest
import small_networks
import torch

from mtl_deploy.export.cli import main
from mtl_deploy.export.fp16 import stage
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle

NETWORKS = Path(__file__).parents[2] / "networks"  # modules that a user has in the current folder


def export(folder: Path, network: str, *arguments: str) -> tuple[int, Path]:
    checkpoint, target = folder / "network.pt", folder / "network.mtl"
    torch.save(getattr(loud_networks, network)().state_dict(), checkpoint)
    tasks = ["--task", "age=regression:years", "--task", "gender=binary:male,female"]
    common = ["--model", f"loud_networks:{network}", "--image-size", "32", "--threads", "1", "--engine", "none"]
    return main([str(checkpoint), "-o", str(target), *tasks, *common, *arguments]), target


def half_of(target: Path) -> dict[str, Any]:
    return next(each.details for each in open_bundle(target).manifest.artifacts if each.path == "fp16.onnx")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NETWORKS))


def test_layers_that_rounding_hurts_stay_in_fp32_until_every_task_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target = export(tmp_path, "Loud", "--no-separate")
    assert code == 0
    manifest, details = open_bundle(target).manifest, half_of(target)
    assert manifest.provenance["left_out"] == {}
    stressed = [(row["artifact"], row["task"]) for row in manifest.provenance["stress"]]
    assert stressed == [(graph, task) for graph in ("fp32.onnx", "fp16.onnx") for task in ("age", "gender")]
    assert max(details["fit"]["before"].values()) > 1
    assert max(details["fit"]["excess"].values()) <= 1
    kept = {name for name, reason in details["kept"].items() if "kept for accuracy" in reason}
    assert kept == set(details["fit"]["keep"])
    assert kept
    assert 0.8 < details["share"] < 1
    out = capsys.readouterr().out
    assert f"{100 * details['share']:.1f} % of the multiply-adds in FP16" in out
    assert "more layers stay in FP32" in out
    rows = [row for row in manifest.verification if row["artifact"] == "fp16.onnx"]
    assert all(row["excess"] <= 1 and row["structure_excess"] <= 1 for row in rows)


def test_sums_of_branches_stay_in_fp32_before_any_layer_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target = export(tmp_path, "LoudSum", "--no-separate")
    assert code == 0
    details = half_of(target)
    assert max(details["fit"]["before"].values()) > 1
    assert max(details["fit"]["excess"].values()) <= 1
    kept = {name for name, reason in details["kept"].items() if "joins branches" in reason}
    assert kept == set(details["fit"]["joins"])
    assert details["share"] > 0.99
    assert details["fit"]["keep"] == []
    out = capsys.readouterr().out
    assert f"{len(kept)} operations that join branches stay in FP32" in out
    nodes = {node.name: node.op_type for node in onnx.load(target / "fp16.onnx").graph.node}
    assert {"Add", "Sub", "Relu"} <= {nodes[name] for name in kept}
    assert "Conv" not in {nodes[name] for name in kept}


def test_weights_are_rounded_up_or_down_where_too_little_would_be_fp16(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, target = export(tmp_path, "LoudWeights")
    assert code == 0
    details = half_of(target)
    assert max(details["fit"]["before"].values()) > 2
    assert max(details["fit"]["excess"].values()) <= 1
    assert details["share"] > 0.99
    assert details["fit"]["keep"] == []
    assert "network.down.weight" in details["rounding"]
    assert f"{len(details['rounding'])} weights and biases are rounded up or down" in capsys.readouterr().out
    original, half = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(target / path).graph.initializer}
        for path in ("fp32.onnx", "fp16.onnx")
    )
    moved = {name for name, value in half.items() if not np.array_equal(value, original[name].astype(value.dtype))}
    assert "network.down.weight" in moved
    assert moved <= set(details["rounding"])
    for row in open_bundle(target).manifest.verification:
        if "fp16" in row["artifact"]:
            assert row["excess"] <= 1
            assert row["structure_excess"] <= 1
            assert (row.get("cut_from") == "fp16.onnx") == (row["artifact"] != "fp16.onnx")
    monkeypatch.setattr(stage, "GOOD_SHARE", 0.0)  # where enough is FP16 anyway, weights are rounded to nearest
    code, target = export(tmp_path, "LoudWeights", "--no-separate", "--force")
    assert code == 0
    assert "rounding" not in half_of(target)
    assert half_of(target)["share"] < 0.8


def test_a_bundle_without_fp16_says_why_and_is_delivered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, target = export(tmp_path, "AllLoud")
    assert code == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: fp16 is left out of the bundle: ")
    assert "--tolerance fp16=0.05" in captured.err
    assert "fp16 is left out" in captured.out
    manifest = open_bundle(target).manifest
    assert {row["artifact"] for row in manifest.provenance["stress"]} == {"fp32.onnx"}
    assert "with half of the multiply-adds in FP32" in manifest.provenance["left_out"]["fp16"]
    assert {artifact.precision for artifact in manifest.artifacts} == {"fp32"}
    with load(target) as model:
        assert model(np.zeros((1, 32, 32, 3), np.uint8)).keys() == {"age", "gender"}


def test_fp16_that_was_asked_for_by_name_fails_with_the_ways_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target = export(tmp_path, "AllLoud", "--precision", "fp32,fp16")
    assert code == 1
    assert not target.exists()
    error = capsys.readouterr().err
    assert "--tolerance fp16=0.05 allows more, --precision fp32 leaves FP16 out" in error
    assert "Nothing was written" in error
    assert "the network's own float32 is" in error
    code, target = export(tmp_path, "AllLoud", "--precision", "fp32,fp16", "--tolerance", "fp16=0.9")
    assert code == 0


def test_a_network_that_does_not_run_in_float64_is_judged_by_its_float32_and_said_so(tmp_path: Path) -> None:
    code, target = export(tmp_path, "Casting", "--precision", "fp32")
    assert code == 0
    manifest = open_bundle(target).manifest
    assert {row["truth"] for row in manifest.verification} == {"float32"}
    assert {row["floor"] for row in manifest.verification} == {None}


def pictures(folder: Path) -> Path:
    from mtl_deploy.calibration.data.natural import natural_images

    file = folder / "images.npy"
    np.save(file, natural_images(24, 32, 32, seed=3))
    return file


def test_int8_that_nobody_named_is_left_out_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["--calibration-data", str(pictures(tmp_path)), "--calibration-method", "minmax"]
    code, target = export(tmp_path, "Loud", "--no-separate", *images)
    assert code == 0
    assert "warning: int8 is left out of the bundle: int8.onnx, task" in capsys.readouterr().err
    manifest = open_bundle(target).manifest
    assert "does not look at the image" in manifest.provenance["left_out"]["int8"]
    assert {artifact.precision for artifact in manifest.artifacts} == {"fp32", "fp16"}
    assert not list(target.rglob("*int8*"))
    code, _ = export(tmp_path, "Loud", "--no-separate", "--precision", "fp32,int8", "--force", *images)
    assert code == 1
    assert "Nothing was written" in capsys.readouterr().err
    assert open_bundle(target).manifest == manifest


def test_a_scale_outside_the_network_hides_no_kernel(tmp_path: Path, export_file: Callable[..., Path]) -> None:
    torch.save(small_networks.Shared().state_dict(), tmp_path / "weights.pt")
    tasks = [
        word
        for task in ("age=regression:days;scale=36500", "gender=binary", "race=multiclass")
        for word in ("--task", task)
    ]
    path = export_file(
        tmp_path / "weights.pt",
        "--model",
        "small_networks:Shared",
        "--image-size",
        "32x32",
        "--precision",
        "fp32",
        *tasks,
    )
    assert not [note for note in open_bundle(path).manifest.provenance["notes"] if "cannot see" in note]


def test_a_network_that_casts_to_float32_is_its_own_truth_and_the_report_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "the network does not run in float64"
    for network, casts in (("Casting", True), ("Dead", False)):
        code, target = export(tmp_path, network, "--precision", "fp32", "--no-separate", "--force")
        assert code == 0
        assert (f"note: {words}" in capsys.readouterr().out) == casts
        manifest = open_bundle(target).manifest
        assert {row["truth"] for row in manifest.verification} == {"float32" if casts else "float64"}
        assert any(note.startswith(words) for note in manifest.provenance["notes"]) == casts


def test_what_verification_cannot_see_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, target = export(tmp_path, "Dead", "--precision", "fp32")
    assert code == 0
    notes = open_bundle(target).manifest.provenance["notes"]
    assert any(note.startswith("task 'gender' is constant") for note in notes)
    (unseen,) = [note for note in notes if note.startswith("verification cannot see")]
    assert "branch.weight" in unseen
    assert "up.weight" in unseen  # never called
    assert "stem.weight" not in unseen
    assert unseen in " ".join(capsys.readouterr().out.split())
    assert "stress" in json.loads((target / "manifest.json").read_text())["provenance"]
