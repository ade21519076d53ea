"""Measuring bundles as they are, and two side by side, as a user does it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from dense_bundle import SIZE, write_dense_bundle
from onnx import numpy_helper
from PIL import Image

from mtl_deploy.calibration.cli import main
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.report import report
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import Bundle, digest, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest

IMAGES = 300
Capture = pytest.CaptureFixture[str]
MakeBundle = Callable[..., Path]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """An .npz file of plain colours with labels that the tiny bundle nearly always gets right."""
    random = np.random.default_rng(0)
    images = np.broadcast_to(random.integers(0, 256, (IMAGES, 1, 1, 3)), (IMAGES, 8, 8, 3)).astype(np.uint8)
    colour = images[:, 0, 0] / 255
    labels = {
        "age": 1 + 100 * colour[:, 0] + random.normal(0, 5, IMAGES),
        "gender": (colour[:, 1] + random.normal(0, 0.1, IMAGES) >= colour[:, 2]).astype(np.int64),
        "race": np.where(random.random(IMAGES) < 0.9, colour.argmax(axis=1), 0),
    }
    np.savez(tmp_path / "data.npz", images=images, **{f"labels/{name}": values for name, values in labels.items()})
    return tmp_path / "data.npz"


def changed(bundle: Path, weights: dict[str, Any], **fields: Any) -> Path:
    """Change initializers of all graphs of a bundle, and fields of its manifest."""
    manifest = open_bundle(bundle).manifest
    artifacts = []
    for artifact in manifest.artifacts:
        model = onnx.load(bundle / artifact.path)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                value = weights[tensor.name](numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        content = model.SerializeToString()
        (bundle / artifact.path).write_bytes(content)
        artifacts.append(replace(artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)))
    write_manifest(bundle, replace(manifest, artifacts=tuple(artifacts), **fields))
    return bundle


def with_tasks(bundle: Path, edit: Callable[[Any], Any]) -> Path:
    signature = open_bundle(bundle).manifest.signature
    return changed(bundle, {}, signature=replace(signature, tasks=tuple(map(edit, signature.tasks))))


def files(bundle: Path) -> dict[str, str]:
    return {str(file.relative_to(bundle)): digest(file) for file in bundle.rglob("*") if file.is_file()}


def answer(capsys: Capture, *arguments: str | Path) -> Any:
    assert main([*map(str, arguments), "-q", "--threads", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_bundle_is_measured_on_all_images_and_left_as_it_is(
    make_bundle: MakeBundle, colours: Path, capsys: Capture
) -> None:
    bundle = make_bundle()
    before = files(bundle)
    found = answer(capsys, bundle, "--evaluate-only", "--calibration-data", colours)
    assert files(bundle) == before
    assert found["images"] == IMAGES
    cells = {(cell["task"], cell["variant"]): cell for cell in found["accuracy"]["cells"]}
    assert set(cells) == {(task, variant) for task in ("age", "gender", "race") for variant in ("fp32", "fp16")}
    with np.load(colours) as data, load(bundle) as model:
        answers = model(data["images"])
        expected = np.mean((answers["gender"][:, 0] >= 0.5) == data["labels/gender"])
        assert cells["gender", "fp32"]["metrics"]["accuracy"] == pytest.approx(expected)
        error = np.abs(answers["age"][:, 0] - data["labels/age"]).mean()
        assert cells["age", "fp32"]["metrics"]["mae"] == pytest.approx(error, rel=1e-5)
    assert {cell["samples"] for cell in cells.values()} == {IMAGES}
    assert main([str(bundle), "--evaluate-only", "--calibration-data", str(colours)]) == 0
    out = capsys.readouterr().out
    assert "Measured on 300 images from " in out
    assert "the bundle is unchanged." in out
    assert "loss against fp32" in out


def test_int8_graphs_are_measured_as_the_calibration_measured_them(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(work=2)
    assert main([str(bundle), "--calibration-data", str(colours), "-q", "--threads", "1"]) == 0
    capsys.readouterr()
    found = answer(capsys, bundle, "--evaluate-only", "--calibration-data", colours)
    cells = {(cell["task"], cell["variant"]): cell for cell in found["accuracy"]["cells"]}
    assert {variant for _, variant in cells} == {"fp32", "fp16", "int8", "int8-cpu"}
    recorded = open_bundle(bundle).manifest.accuracy["cells"]
    half = {(cell["task"], cell["variant"]): cell for cell in recorded}
    for key, cell in cells.items():  # on all images; the calibration saw half of them
        assert cell["samples"] == 2 * half[key]["samples"]
    assert 0 < cells["age", "int8"]["mean_error"] < 5
    assert cells["age", "int8"]["mean_error"] == pytest.approx(half["age", "int8"]["mean_error"], rel=0.5)


def test_labels_from_a_csv_file_measure_a_bundle(make_bundle: MakeBundle, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
    for name, colour in colours.items():
        Image.new("RGB", (20, 30), colour).save(folder / f"{name}.png")
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "race"), ("red.png", "a"), ("green.png", "b"), ("blue.png", "a")])
    found = answer(
        capsys, make_bundle(), "--evaluate-only", "--calibration-data", folder, "--labels", tmp_path / "new.csv"
    )
    cell = next(cell for cell in found["accuracy"]["cells"] if (cell["task"], cell["variant"]) == ("race", "fp32"))
    assert cell["metrics"]["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "option",
    [["--max-drop", "1%"], ["-o", "other.mtl"], ["--calibration-method", "mse"], ["--weight-bits", "7"], ["--force"]],
    ids=" ".join,
)
def test_options_that_make_graphs_do_not_go_with_measuring(
    make_bundle: MakeBundle, colours: Path, capsys: Capture, option: list[str]
) -> None:
    command = [str(make_bundle()), "--evaluate-only", "--calibration-data", str(colours), *option]
    assert main(command) == 2
    assert "--evaluate-only makes no graphs and writes nothing: leave out --" in capsys.readouterr().err


def test_measuring_without_images_is_refused(make_bundle: MakeBundle, capsys: Capture) -> None:
    assert main([str(make_bundle()), "--evaluate-only"]) == 2
    assert "--evaluate-only needs images to measure on: pass --calibration-data" in capsys.readouterr().err


def test_two_training_runs_are_compared_a_task_at_a_time(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The second is worse at gender, better at age, and the same at race."""
    first = changed(make_bundle(tmp_path / "first.mtl"), {"age.scale": lambda scale: 0.8 * scale})
    second = changed(
        make_bundle(tmp_path / "second.mtl"), {"gender.weight": lambda mix: mix + np.array([[1.5, 0.0, 0.0]])}
    )
    before = files(first) | files(second)
    command = ["compare", first, second, "--calibration-data", colours]
    found = answer(capsys, *command)
    assert files(first) | files(second) == before
    assert found["precisions"] == ["fp32", "fp32"]
    tasks = {row["task"]: row for row in found["tasks"]}
    assert [tasks[name]["better"] for name in ("age", "gender", "race")] == ["second", "first", None]
    assert {row["images"] for row in tasks.values()} == {IMAGES}
    assert tasks["age"]["difference"] == pytest.approx(tasks["age"]["second"]["mae"] - tasks["age"]["first"]["mae"])
    gender = tasks["gender"]
    assert gender["low"] < gender["difference"] < gender["high"] < 0
    assert gender["difference"] == pytest.approx(gender["second"]["accuracy"] - gender["first"]["accuracy"])
    assert tasks["race"]["low"] < 0 == tasks["race"]["difference"] < tasks["race"]["high"]
    with np.load(colours) as data, load(second) as model:
        accuracy = np.mean((model(data["images"])["gender"][:, 0] >= 0.5) == data["labels/gender"])
    assert gender["second"]["accuracy"] == pytest.approx(accuracy)

    assert main([*map(str, command), "-q"]) == 0
    rows = {tuple(line.split("  ")[0].split()): line for line in capsys.readouterr().out.splitlines()}
    assert rows[("race",)]
    swapped = answer(capsys, "--calibration-data", colours, "compare", second, first)  # options may come first
    assert {row["task"]: row["better"] for row in swapped["tasks"]} == {
        "age": "first",
        "gender": "second",
        "race": None,
    }


def test_pairing_shows_a_difference_that_two_intervals_apart_would_not(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Half a year on every image, where errors from image to image differ by several."""
    first = make_bundle(tmp_path / "first.mtl")
    second = changed(make_bundle(tmp_path / "second.mtl"), {"age.offset": lambda offset: offset + 3})
    found = answer(capsys, "compare", first, second, "--calibration-data", colours)
    age = next(row for row in found["tasks"] if row["task"] == "age")
    assert age["better"] == "first"
    assert age["high"] - age["low"] < 1.2


def test_bundles_that_prepare_images_their_own_way_are_compared(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = make_bundle(tmp_path / "first.mtl", outputs="logits")
    second = make_bundle(tmp_path / "second.mtl", batch=7)
    found = answer(capsys, "compare", first, second, "--calibration-data", colours)
    for row in found["tasks"]:
        assert row["first"] == pytest.approx(row["second"], rel=1e-4)
        assert row["better"] is None
    third = make_bundle(tmp_path / "third.mtl", image_input="float")  # its mean and std are ImageNet's
    found = answer(capsys, "compare", first, third, "--calibration-data", colours)
    assert found["conditions"] == {"input": {"first": "uint8", "second": "float"}}


def test_the_precision_is_chosen_or_the_highest_that_both_have(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = make_bundle(tmp_path / "first.mtl")
    second = make_bundle(tmp_path / "second.mtl", precisions=("fp16",))
    command = ["compare", first, second, "--calibration-data", colours]
    assert answer(capsys, *command)["precisions"] == ["fp16", "fp16"]
    assert answer(capsys, *command, "--precision", "fp32,fp16")["precisions"] == ["fp32", "fp16"]
    assert main([*map(str, command), "--precision", "fp32"]) == 2
    assert "second.mtl: has no fp32 graph; it has fp16" in capsys.readouterr().err
    assert main([*map(str, command), "--precision", "fp64"]) == 2
    assert "--precision fp64: write one of fp32, fp16, int8, int8-cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda task: replace(task, labels=("female", "male")) if task.name == "gender" else task,
            "task 'gender' has different labels: class 0 is 'male' in the first and 'female' in the second",
        ),
        (
            lambda task: replace(task, labels=()) if task.name == "race" else task,
            "task 'race' has different labels: class 0 is 'a' in the first and none in the second",
        ),
        (
            lambda task: replace(task, unit="months") if task.name == "age" else task,
            "task 'age' has unit years and months",
        ),
        (
            lambda task: replace(task, name="sex") if task.name == "gender" else task,
            "only the first has task 'gender'; only the second has task 'sex'",
        ),
        (
            lambda task: (
                replace(task, kind="multiclass", labels=("male", "female"), size=2) if task.name == "gender" else task
            ),
            "task 'gender' has kind binary and multiclass",
        ),
    ],
    ids=["order", "unlabelled", "unit", "name", "kind"],
)
def test_bundles_that_do_other_things_are_refused_and_the_difference_is_named(
    make_bundle: MakeBundle,
    colours: Path,
    tmp_path: Path,
    capsys: Capture,
    edit: Callable[[Any], Any],
    message: str,
) -> None:
    first, second = make_bundle(tmp_path / "first.mtl"), with_tasks(make_bundle(tmp_path / "second.mtl"), edit)
    assert main(["compare", str(first), str(second), "--calibration-data", str(colours), "-q"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_the_order_of_tasks_does_not_matter(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    first, second = make_bundle(tmp_path / "first.mtl"), make_bundle(tmp_path / "second.mtl")
    signature = open_bundle(second).manifest.signature
    changed(second, {}, signature=replace(signature, tasks=signature.tasks[::-1]))
    found = answer(capsys, "compare", first, second, "--calibration-data", colours)
    assert [row["task"] for row in found["tasks"]] == ["age", "gender", "race"]
    assert all(row["first"] == pytest.approx(row["second"]) for row in found["tasks"])


def test_without_any_truth_nothing_can_be_compared(
    make_bundle: MakeBundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    with np.load(colours) as data:
        np.save(tmp_path / "images.npy", data["images"])
    bundle = str(make_bundle())
    assert main(["compare", bundle, bundle, "--calibration-data", str(tmp_path / "images.npy"), "-q"]) == 2
    assert "the truth of no task is known" in capsys.readouterr().err


def test_maps_of_two_sizes_are_compared(tmp_path: Path, capsys: Capture) -> None:
    first = write_dense_bundle(tmp_path / "first.mtl")
    second = write_dense_bundle(tmp_path / "second.mtl", size=(2 * SIZE[0], 2 * SIZE[1]))
    images = synthetic_images(40, *SIZE, seed=1)
    with load(first) as model:
        truth = model(images)
    normals = truth["normals"].transpose(0, 2, 3, 1)
    arrays = {"labels/seg": truth["seg"], "labels/depth": truth["depth"] + 0.1, "labels/normals": normals}
    np.savez(tmp_path / "data.npz", images=images, **arrays)
    found = answer(capsys, "compare", first, second, "--calibration-data", tmp_path / "data.npz")
    tasks = {row["task"]: row for row in found["tasks"]}
    assert tasks["seg"]["first"]["mean_iou"] == pytest.approx(1)
    assert tasks["seg"]["better"] == "first"  # the truth is its own
    assert tasks["depth"]["unit"] == "metres"
    assert tasks["depth"]["low"] < tasks["depth"]["difference"] < tasks["depth"]["high"]
    assert tasks["normals"]["unit"] == "degrees"
    assert set(found["conditions"]) == {"height", "width"}
    only = answer(capsys, second, "--evaluate-only", "--calibration-data", tmp_path / "data.npz")
    cells = {cell["task"]: cell for cell in only["accuracy"]["cells"]}
    assert cells["seg"]["metrics"] == pytest.approx(tasks["seg"]["second"])


def test_the_subcommand_has_help_and_is_completed(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: mtl-calibrate compare")
    assert "exit codes:" in out
    with pytest.raises(SystemExit, match="0"):
        main(["--quiet", "compare", "--help"])
    assert capsys.readouterr().out == out
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "subcommands:\n  compare " in capsys.readouterr().out
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert "_shtab_mtl_calibrate_subparsers=(compare)" in script
    assert "--evaluate-only" in script
    assert " --precision " in script.split("_shtab_mtl_calibrate_compare_option_strings=")[1].split("\n")[0]


@pytest.fixture
def flat_bundle(make_bundle: MakeBundle) -> Bundle:
    return open_bundle(make_bundle(work=2))


def test_images_that_cannot_decide_a_budget_are_another_outcome_than_a_missed_one(
    flat_bundle: Bundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    bundle = flat_bundle.path
    data = ["--calibration-data", str(colours), "-q", "--threads", "1", "--max-drop"]
    target = tmp_path / "undecided.mtl"
    assert main([str(bundle), *data, "gender=0.5%", "-o", str(target)]) == 3
    captured = capsys.readouterr()
    words = "undecided: 100 images cannot show that every budget is met: task 'gender' drops by "
    assert words in captured.out
    assert captured.err.startswith(words)
    assert "images in all, labelled as these are, would decide it (--calibration-samples " in captured.err
    assert "missed" not in captured.out + captured.err
    found = open_bundle(target)
    kept = found.manifest.calibration | {"kept": ["a", "b"]}
    for nodes, words in ((1, "In higher precision: a, b"), (0, "all 2 layers, so that nothing is left in INT8")):
        graphs = [replace(one, details=one.details | {"nodes": nodes}) for one in found.manifest.artifacts]
        manifest = replace(found.manifest, artifacts=tuple(graphs), calibration=kept)
        assert words in report(replace(found, manifest=manifest))
    budgets = found.manifest.calibration["budgets"]
    assert budgets["outcome"] == "undecided"
    assert budgets["images"] == {"gender": 100}
    assert budgets["images_needed"]["gender"] > 700
    with load(target, precision="int8-cpu") as model:
        assert model.artifact is not None

    before = files(bundle)
    assert main([str(bundle), *data, "gender=0"]) == 3  # no number of images shows a loss of exactly nothing
    assert "No number of images would show it for 'gender'" in capsys.readouterr().err
    assert main([str(bundle), *data, "gender=20%,race=20%", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["calibration"]["budgets"]
    assert found["outcome"] == "met"
    assert all(found["drop_high"][task] <= found["budgets"][task] for task in ("gender", "race"))
    assert before != files(bundle)


def test_a_missed_budget_is_told_to_programs_and_leaves_the_bundle(
    flat_bundle: Bundle, colours: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Without labels any difference from FP32 counts: with every layer kept some is left."""
    with np.load(colours) as data:
        np.save(tmp_path / "images.npy", data["images"])
    bundle = flat_bundle.path
    before = files(bundle)
    command = [str(bundle), "--calibration-data", str(tmp_path / "images.npy"), "-q", "--threads", "1"]
    code = main([*command, "--max-drop", "age=0", "--json"])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.startswith("error: missed: task 'age' drops by ")
    assert json.loads(captured.out)["budgets"]["outcome"] == "missed"
    assert "undecided" not in captured.out + captured.err
    assert files(bundle) == before
