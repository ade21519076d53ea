"""Errors of rotations in degrees, and labels of every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from mtl_deploy.calibration.accuracy.metrics import metrics, per_sample
from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.data.labels import array_labels, known, parse_labels
from mtl_deploy.calibration.kinds.cells import BETWEEN
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime import ImageError, Task
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.kinds.rotation.matrices import from_angles

TASK = Task("pose", "rotation", size=9)
TRUE, FOUND = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)
LABELS, ANSWERS = (each.as_matrix().reshape(-1, 9) for each in (TRUE, FOUND))


def test_the_error_is_the_geodesic_distance() -> None:
    wanted = np.degrees((TRUE.inv() * FOUND).magnitude())
    np.testing.assert_allclose(per_sample(TASK, ANSWERS, LABELS, True), wanted, atol=1e-6)
    measured = metrics(TASK, ANSWERS, LABELS, True)
    assert measured["geodesic"] == pytest.approx(wanted.mean())
    six = Task("pose", "rotation", size=6)
    columns = FOUND.as_matrix().transpose(0, 2, 1).reshape(-1, 9)[:, :6]
    np.testing.assert_allclose(per_sample(six, columns, LABELS, False), wanted, atol=1e-5)
    np.testing.assert_allclose(kind_of(TASK).differences(TASK, ANSWERS, LABELS, True)[:, 0], wanted, atol=1e-6)
    broken = ANSWERS.copy()
    broken[3] = np.nan
    assert per_sample(TASK, broken, LABELS, True)[3] == np.inf
    assert metrics(TASK, broken, LABELS, True)["mae_yaw"] == np.inf


def test_angles_are_compared_on_the_circle() -> None:
    one = from_angles(np.array([[10.0, 20, 179]])).reshape(1, 9)
    other = from_angles(np.array([[11.0, 18, -178]])).reshape(1, 9)
    measured = metrics(TASK, one, other, True)
    assert [measured[f"mae_{name}"] for name in ("yaw", "pitch", "roll")] == pytest.approx([1, 2, 3])
    assert list(measured) == ["geodesic", "mae_yaw", "mae_pitch", "mae_roll"]


def test_the_best_constant_is_the_mean_rotation() -> None:
    turns = Rotation.from_euler("ZYX", np.random.default_rng(0).normal(20, 8, (60, 3)), degrees=True)
    labels = turns.as_matrix().reshape(-1, 9)
    usual = kind_of(TASK).usual(TASK, labels, labels, True)
    assert usual is not None
    mean = turns.mean()  # SciPy's, the chordal mean as well
    np.testing.assert_allclose(usual.per_image, np.degrees((mean.inv() * turns).magnitude()), atol=1e-4)
    assert kind_of(TASK).usual(TASK, labels, np.tile(labels[:1], (5, 1)), True) is None


def test_labels_are_angles_or_nine_values(tmp_path: Path) -> None:
    cells = [BETWEEN.join(["10", "20", "30"]), " ".join(map(str, LABELS[0])), BETWEEN.join(["", "", ""]), "1 2 3"]
    found, problems = parse_labels(TASK, [*cells, " ".join(["1"] * 9), " ".join(map(str, -LABELS[0]))])
    np.testing.assert_allclose(found[0], from_angles(np.array([[10.0, 20, 30]])).ravel())
    np.testing.assert_allclose(found[1], LABELS[0])
    assert known(found).tolist() == [True, True, False, False, False, False]
    assert sorted(problems) == [3, 4, 5]
    assert "is no rotation matrix" in problems[5]
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,pose.roll,pose.yaw,pose.pitch\n0.png,30,10,20\n1.png,,,\n2.png,0,0,0")
    data = load_data(tmp_path, Preprocessing(8, 8), [TASK], labels=tmp_path / "labels.csv")
    np.testing.assert_allclose(data.labels["pose"][0], found[0])
    np.testing.assert_allclose(data.labels["pose"][2], np.eye(3).ravel())


def test_labels_of_an_array() -> None:
    for array in (LABELS, LABELS.reshape(-1, 3, 3)):
        np.testing.assert_array_equal(array_labels(TASK, array, "here"), LABELS)
    angles = np.array([[10.0, 20, 30], [np.nan, 0, 0]])
    found = array_labels(TASK, angles, "here")
    np.testing.assert_allclose(found[0], from_angles(angles[:1]).ravel())
    assert known(found).tolist() == [True, False]
    for wrong, message in (
        (LABELS[:, :4], "yaw, pitch and roll"),
        (2 * LABELS, "no rotations"),
        (np.array(["a"]), "expected numbers"),
    ):
        with pytest.raises(ImageError, match=message):
            array_labels(TASK, wrong, "here")
