"""Errors of named values in the image's pixels, normalised; labels of every form; what the doubts compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.accuracy.metrics import lower_is_better, main_metric, metrics, name_of, per_sample
from mtl_deploy.calibration.compare import task_differences
from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.labels import known
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.kinds.vector.truth import truth_of
from mtl_deploy.calibration.search.budgets import check_budgets, parse_budgets
from mtl_deploy.runtime import ImageError, OptionError, Task
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.images.fit import place

RNG = np.random.default_rng(0)
POINTS = ["left_eye", "right_eye", "nose"]
LETTERBOX = Preprocessing(32, 32, fit="letterbox")


def vector(size: int, **fields: Any) -> Task:
    return Task.from_dict({"name": "v", "kind": "vector", "size": size, **fields})


def landmarks(**fields: Any) -> Task:
    return vector(6, names=POINTS, order="pairs", **fields)


def test_the_normalised_mean_error_is_that_of_the_paper() -> None:
    truth, found = RNG.normal(size=(2, 40, 6))
    points, answers = truth.reshape(-1, 3, 2), found.reshape(-1, 3, 2)
    away = np.sqrt(((points - answers) ** 2).sum(-1)).mean(-1)
    eyes = np.sqrt(((points[:, 0] - points[:, 1]) ** 2).sum(-1))
    for normaliser, wanted in ((["left_eye", "right_eye"], away / eyes), (2.5, away / 2.5)):
        task = landmarks(normaliser=normaliser)
        assert main_metric(task) == "nme"
        np.testing.assert_allclose(per_sample(task, found, truth, True), wanted)
        measured = metrics(task, found, truth, True)
        assert next(iter(measured)) == "nme"
        assert measured["nme"] == pytest.approx(wanted.mean())
        assert measured["point_distance"] == pytest.approx(away.mean())
        assert measured["mae"] == pytest.approx(np.abs(truth - found).mean())
        assert measured["mae:nose.y"] == pytest.approx(np.abs(truth - found)[:, 5].mean())
    assert name_of("mae:nose.y") == "mean absolute error of nose.y"
    assert lower_is_better("nme")
    assert lower_is_better("mae:nose.y")


def test_errors_are_in_the_pixels_of_each_image() -> None:
    sizes = [(64, 128), (100, 50), (32, 32)]
    placements = [place(*size, LETTERBOX) for size in sizes]
    truth = RNG.uniform(0, 30, (3, 6))
    for frame in ("input", "unit"):
        task = landmarks(frame=frame, normaliser="image")
        labels = kind_of(task).placed(task, truth, placements)
        assert kind_of(task).comparable(task, labels) == pytest.approx(truth)
        answers = np.empty((3, 6))
        for row, placement in enumerate(placements):
            top, left, high, wide = placement.box
            height, width = placement.original
            inside = truth[row].reshape(3, 2) * (wide / width, high / height) + (left, top)
            answers[row] = (inside / (32 if frame == "unit" else 1)).ravel()
        assert per_sample(task, answers, labels, True) == pytest.approx(0, abs=1e-9)
        assert truth_of(task, labels).in_network(task) == pytest.approx(answers)
        moved = answers.copy()
        moved[:, 0] += 1 / (32 if frame == "unit" else 1)  # a pixel of the input
        pixels = np.array([placement.original[1] / placement.box[3] for placement in placements])
        area = np.sqrt([height * width for height, width in sizes])
        assert per_sample(task, moved, labels, True) == pytest.approx(pixels / 3 / area)
        assert metrics(task, moved, labels, True)["mae:left_eye.x"] == pytest.approx(pixels.mean())
        apart = kind_of(task).differences_on(task, moved, answers, labels, True)
        assert apart[:, 0] == pytest.approx(pixels)
        assert kind_of(task).unit_of_differences(task, labels) == "pixels"
        alone = kind_of(task).differences_on(task, moved, answers, None, True)
        assert alone[:, 0] == pytest.approx(1 / 32 if frame == "unit" else 1)
        assert kind_of(task).unit_of_differences(task, None) in ("pixels of the network's input", "of the input's side")


def test_raw_answers_are_scaled_and_nan_is_an_infinite_error() -> None:
    task = vector(2, names=["a", "b"], scales=[2, 4], offsets=[1, 0])
    labels = np.array([[1.0, 2], [3, 4], [np.nan, 1]])
    assert per_sample(task, np.array([[0, 0.5], [1, 1.5], [0, 0]]), labels, False) == pytest.approx(
        [0, 1, np.nan], nan_ok=True
    )
    assert per_sample(task, np.array([[1, np.nan]]), labels[:1], True)[0] == np.inf
    assert metrics(task, np.array([[1, np.nan]]), labels[:1], True)["mae:b"] == np.inf


def test_values_of_several_units_are_judged_by_their_spread() -> None:
    task = vector(2, names=["yaw", "far"], units=["degrees", "m"])
    labels = RNG.normal(size=(50, 2)) * (30, 0.1) + (0, 5)
    spread = np.abs(labels - np.median(labels, axis=0)).mean(axis=0)
    found = labels + np.array([3, 0.01])
    measured = metrics(task, found, labels, True)
    assert list(measured) == ["spread_error", "mae:yaw (degrees)", "mae:far (m)"]
    assert measured["spread_error"] == pytest.approx((np.array([3, 0.01]) / spread).mean())
    assert measured["mae:far (m)"] == pytest.approx(0.01)
    assert kind_of(task).unit(task) == "of its spread"


def test_the_best_constant_is_the_median_in_the_networks_frame() -> None:
    task = landmarks(frame="input")
    placements = [place(64 * (1 + row % 2), 64 * (1 + row % 2), LETTERBOX) for row in range(30)]
    inside = RNG.normal(16, 1, (30, 6))
    factor = np.array([2.0 if row % 2 == 0 else 4.0 for row in range(30)])[:, None]
    labels = kind_of(task).placed(task, inside * factor, placements)
    usual = kind_of(task).usual(task, inside, labels, True)
    assert usual is not None
    wanted = (np.abs(inside - np.median(inside, axis=0)) * factor).mean(axis=1)
    np.testing.assert_allclose(usual.per_image, wanted)
    assert usual.answer.endswith(", the median")


def photos(folder: Path) -> Path:
    for number, size in enumerate(((128, 64), (50, 100), (32, 32), (40, 40))):
        Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_labels_are_columns_of_a_table(tmp_path: Path) -> None:
    photos(tmp_path)
    task = landmarks(frame="unit", normaliser=["left_eye", "right_eye"])
    names = [f"v.{point}.{axis}" for point in POINTS for axis in "xy"]
    lines = [
        ",".join(["file", *reversed(names)]),
        "0.png,6,5,4,3,2,1",
        "1.png,12,11,10,9,8,7",
        "2.png,1,1,,,0,0",
        "3.png,1,2,3,3,3,3",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = load_data(tmp_path, LETTERBOX, [task], labels=tmp_path / "labels.csv")
    truth = truth_of(task, data.labels["v"])
    assert truth.values[:2].tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    assert known(data.labels["v"]).tolist() == [True, True, False, False]
    assert truth.size is not None
    assert truth.size[0] == pytest.approx(np.sqrt(128 * 64))
    said = " ".join(data.warnings)
    assert "v has 4 of 6 values" in said
    assert "the two points of the normaliser are at one place" in said
    (tmp_path / "labels.csv").write_text("file,v.left_eye.x,v.nose.y\n0.png,1,2")
    with pytest.raises(
        OptionError, match=r"columns of task 'v' are missing: v.left_eye.y, v.right_eye.x, v.right_eye.y, ..."
    ):
        load_data(tmp_path, LETTERBOX, [task], labels=tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file;v\n0.png;1 2,5 3 4 5 6\n1.png;1 2 3")
    data = load_data(tmp_path, LETTERBOX, [task], labels=tmp_path / "labels.csv")
    assert truth_of(task, data.labels["v"]).values[0].tolist() == [1, 2.5, 3, 4, 5, 6]


def test_labels_of_an_array_are_placed_as_its_images_are(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 64, 128, 3), dtype=np.uint8)
    truth = RNG.uniform(0, 60, (3, 3, 2))
    np.savez(tmp_path / "a.npz", images=images, **{"labels/v": truth})
    task = landmarks(frame="input")
    data = load_data(tmp_path / "a.npz", LETTERBOX, [task])
    found = truth_of(task, data.labels["v"])
    np.testing.assert_allclose(found.values, truth.reshape(3, 6))
    np.testing.assert_allclose(found.in_network(task), (truth / 4 + (0, 8)).reshape(3, 6))
    np.savez(tmp_path / "b.npz", images=images, **{"labels/v": truth[:, :2]})
    with pytest.raises(ImageError, match="labels/v: shape"):
        load_data(tmp_path / "b.npz", LETTERBOX, [task])


def test_many_values_are_divided_into_parts_quickly() -> None:
    images = RNG.integers(0, 256, (600, 2, 2, 3), dtype=np.uint8)
    labels = RNG.normal(size=(600, 201))
    data = CalibrationData(images, {"v": labels}, "here")
    part = data.parts((0.5, 0.5))
    assert abs(np.count_nonzero(part) - 300) <= 30


def test_budgets_are_in_the_unit_or_a_share_of_the_error() -> None:
    eyes, mixed = landmarks(normaliser=2.0), vector(2, names=["a", "b"], unit="mm")
    assert parse_budgets("v=0.01", [eyes]) == {"v": 0.01}
    assert parse_budgets("v=5%", [mixed], {"v": 4.0}) == {"v": 0.2}
    with pytest.raises(OptionError, match="needs labels; give it in mm"):
        parse_budgets("v=5%", [mixed])
    check_budgets("v=5%", [eyes])


def test_bundles_with_other_names_are_not_compared() -> None:
    one, other = vector(2, names=["a", "b"]), vector(2, names=["b", "a"])
    assert task_differences([one], [one]) == []
    assert task_differences([one], [other]) == [
        "task 'v' has different names: value 0 is 'a' in the first and 'b' in the second"
    ]
    assert task_differences([vector(2, units=["m", "s"])], [vector(2, units=["m", "h"])]) == [
        "task 'v' has different units: value 1 is 's' in the first and 'h' in the second"
    ]
    assert task_differences([landmarks(normaliser=["nose", "left_eye"])], [landmarks(normaliser=2)]) == [
        "task 'v' has normaliser nose, left_eye and 2"
    ]
    assert task_differences([one], [vector(3)]) == ["task 'v' has 2 values and 3"]
    assert task_differences([landmarks(frame="unit")], [landmarks(frame="input")]) == []


def test_an_error_in_a_value_of_a_small_unit_counts_as_much_as_in_one_of_a_large() -> None:
    """Both where a method of quantization is chosen and where INT8 is checked against FP32."""
    task = vector(2, names=["yaw", "far"], units=["degrees", "m"])
    expected = (RNG.normal(size=(400, 2)) * (30, 0.01)).astype(np.float32)
    spread = np.abs(expected - np.median(expected, axis=0)).mean(axis=0)
    kind = kind_of(task)
    for which in (0, 1):
        found = expected.copy()
        found[:, which] += spread[which]
        assert kind.relative(task, kind.spread_rows(task, expected, found)) == pytest.approx(0.5, rel=1e-4)
        weighted = np.abs(found - expected) * kind.weight(task, expected)
        assert weighted.mean() == pytest.approx(0.5, rel=1e-4)
    assert kind.weight(vector(2, unit="mm"), expected) == 1.0


def test_labels_of_points_are_cocos_too(tmp_path: Path) -> None:
    photos(tmp_path)
    task = vector(4, names=["left_eye", "right_eye"], order="planes", frame="input")
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(3)]
    seen = {0: [9, 8, 2, 1, 2, 2, 3, 4, 1], 1: [0, 0, 0, 5, 6, 2, 7, 8, 2], 2: [0, 0, 0, 5, 6, 2, 0, 0, 0]}
    annotations = [{"image_id": number, "category_id": 1, "keypoints": points} for number, points in seen.items()]
    categories = [{"id": 1, "keypoints": ["nose", "left_eye", "right_eye"]}]
    labels = tmp_path / "labels"
    labels.mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (labels / "v.json").write_text(json.dumps(content))
    data = load_data(tmp_path, LETTERBOX, [task], labels=labels)
    truth = truth_of(task, data.labels["v"])
    assert truth.values[:2].tolist() == [[1, 3, 2, 4], [5, 7, 6, 8]]
    assert known(data.labels["v"]).tolist() == [True, True, False, False]
    assert truth.way is not None
    assert "v: 1 image has only some of the points: unknown" in data.warnings
    (labels / "w.json").write_text(json.dumps(content))
    box = Task.from_dict({"name": "w", "kind": "vector", "size": 2, "names": ["yaw", "x"]})
    with pytest.raises(OptionError, match=r"values that are none; write a table with columns w\.NAME"):
        load_data(tmp_path, LETTERBOX, [box], labels=labels)
