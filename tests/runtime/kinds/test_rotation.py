"""Rotations: from six and nine values, angles, words, misuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from mtl_deploy.runtime import Task, TaskError
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.kinds.rotation.matrices import angles, apart, from_angles, from_six, nearest
from mtl_deploy.runtime.predictions.decoding import decode, kind_of

TURNS = Rotation.random(64, random_state=0)
MATRICES = TURNS.as_matrix()


def rotation(size: int = 9, **fields: Any) -> Task:
    return Task.from_dict({"name": "pose", "kind": "rotation", "size": size, **fields})


def test_angles_are_those_of_scipy_and_lead_back() -> None:
    found = angles(MATRICES)
    roll, yaw, pitch = TURNS.as_euler("ZYX", degrees=True).T
    np.testing.assert_allclose(found, np.stack([yaw, pitch, roll], 1), atol=1e-6)
    np.testing.assert_allclose(from_angles(found), MATRICES, atol=1e-9)


def test_angles_at_a_yaw_of_ninety_degrees_lead_back_too() -> None:
    turned = from_angles(np.array([[90.0, 20, 30], [-90, 10, -40]]))
    found = angles(turned)
    assert found[:, 2].tolist() == [0, 0]
    np.testing.assert_allclose(from_angles(found), turned, atol=1e-6)


def test_the_distance_of_rotations_is_scipys() -> None:
    others = Rotation.random(64, random_state=1)
    wanted = np.degrees((TURNS.inv() * others).magnitude())
    np.testing.assert_allclose(apart(MATRICES, others.as_matrix()), wanted, atol=1e-6)
    near = (TURNS * Rotation.from_rotvec([[1e-7, 0, 0]])).as_matrix()
    np.testing.assert_allclose(apart(MATRICES, near), np.degrees(1e-7), rtol=1e-6)


@pytest.mark.parametrize("columns", [True, False])
def test_six_values_are_two_vectors_of_the_matrix(columns: bool) -> None:
    vectors = MATRICES.transpose(0, 2, 1) if columns else MATRICES
    stretch = np.random.default_rng(0).uniform(0.5, 3, (64, 3))
    leaning = np.concatenate([stretch[:, :1] * vectors[:, 0], stretch[:, 1:2] * vectors[:, 1] + vectors[:, 0]], 1)
    np.testing.assert_allclose(from_six(leaning, columns=columns), MATRICES, atol=1e-9)


def test_nine_values_become_the_nearest_rotation() -> None:
    noisy = 1.7 * MATRICES + np.random.default_rng(0).normal(size=MATRICES.shape) * 0.1
    wanted = np.stack([Rotation.from_matrix(each).as_matrix() for each in noisy])  # SciPy's is the nearest too
    np.testing.assert_allclose(nearest(noisy), wanted, atol=1e-6)
    mirrored = nearest(-np.eye(3)[None])
    np.testing.assert_allclose(np.linalg.det(mirrored), 1)
    assert np.isnan(nearest(np.full((1, 3, 3), np.nan))).all()


def test_raw_and_decoded_values_are_one_prediction() -> None:
    flat = MATRICES.reshape(-1, 9).astype(np.float32)
    columns = MATRICES.transpose(0, 2, 1).reshape(-1, 9).astype(np.float32)
    wanted = decode(rotation(), flat, "decoded")
    assert decode(rotation(), flat, "logits") == wanted
    for task, raw in (
        (rotation(vectors="columns"), columns),
        (rotation(6), columns[:, :6]),
        (rotation(6, vectors="rows"), flat[:, :6]),
    ):
        for one, other in zip(decode(task, raw, "logits"), wanted, strict=True):
            np.testing.assert_allclose(one.value, other.value, atol=1e-5)
        assert task.of.decoded_shape(task, 8, 8) == (9,)
        assert decode(task, flat, "decoded") == wanted


def test_words_json_and_axes() -> None:
    turned = from_angles(np.array([[10.0, 20, 30]])).reshape(1, 9).astype(np.float32)
    (found,) = decode(rotation(), turned, "decoded")
    assert str(found) == "yaw 10.0, pitch 20.0, roll 30.0 degrees"
    data = json.loads(json.dumps(found.to_dict()))
    assert [data["yaw"], data["pitch"], data["roll"]] == pytest.approx([10, 20, 30], abs=1e-4)
    assert np.array(data["matrix"]) == pytest.approx(turned.reshape(3, 3))
    image = np.zeros((100, 200, 3), np.uint8)
    x, y, _ = kind_of("rotation").marks_on(rotation(), found, image)
    assert x.start == y.start == (100, 50)
    assert np.subtract(x.end, x.start) / 35 == pytest.approx(turned.reshape(3, 3)[:2, 0], abs=1e-6)
    (broken,) = decode(rotation(), np.full((1, 9), np.nan, np.float32), "decoded")
    assert not broken.finite
    assert broken.to_dict()["yaw"] is None
    assert str(broken) == "(NaN or infinite numbers)"
    from mtl_deploy.runtime.show.picture import show

    assert isinstance(show(image, {"pose": broken}, [rotation()]), Image.Image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pose=rotation:diagonal", "is not one of"),
        ("pose=rotation;unit=degrees", "only a regression"),
        ("pose=rotation;labels=a", "has no labels"),
        ("pose=rotation;activation=softmax", "taken as they are"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(TaskError, match="3 values per sample; a rotation is a matrix of 9 values, or"):
        rotation(3)
    assert parse_task("pose=rotation:rows").options.vectors == "rows"
    task = rotation(6, vectors="rows")
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
