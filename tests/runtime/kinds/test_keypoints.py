"""Keypoints in the runtime: decoding against the papers' own loops, the image's own frame, words, drawing, misuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.kinds.keypoints.heatmaps import points_of
from mtl_deploy.runtime.kinds.keypoints.kind import Keypoints
from mtl_deploy.runtime.kinds.keypoints.options import KeypointOptions
from mtl_deploy.runtime.predictions.decoding import decode
from mtl_deploy.runtime.predictions.drawing import Line, Point
from mtl_deploy.runtime.show.picture import show

RANDOM = np.random.default_rng(2)
NAMES = ("nose", "left", "right")


def task(count: int = 3, **fields: Any) -> Task:
    options = KeypointOptions(**fields)
    return Task("p", "keypoints", labels=NAMES if count == 3 else (), size=count, stride=4, options=options)


def as_published(maps: np.ndarray) -> np.ndarray:
    """The loop of lib/core/inference.py of Simple Baselines and HRNet: get_max_preds, then the quarter of get_final_preds."""
    found = np.zeros((*maps.shape[:2], 2))
    height, width = maps.shape[2:]
    for n in range(maps.shape[0]):
        for p in range(maps.shape[1]):
            hm = maps[n, p]
            index = int(np.argmax(hm))
            found[n, p] = index % width, index // width
            px, py = math.floor(found[n, p, 0] + 0.5), math.floor(found[n, p, 1] + 0.5)
            if 1 < px < width - 1 and 1 < py < height - 1:
                diff = np.array([hm[py, px + 1] - hm[py, px - 1], hm[py + 1, px] - hm[py - 1, px]])
                found[n, p] += np.sign(diff) * 0.25
    return found


@pytest.mark.parametrize("shape", [(40, 3, 9, 13), (40, 3, 5, 4), (200, 3, 3, 3)])
def test_peaks_are_those_of_the_papers_code_borders_and_corners_too(shape: tuple[int, ...]) -> None:
    maps = RANDOM.standard_normal(shape).astype(np.float32)
    found = points_of(task(), maps)
    np.testing.assert_array_equal(found[..., :2], 4 * as_published(maps))
    np.testing.assert_array_equal(found[..., 2], maps.max(axis=(2, 3)))
    assert found.dtype == np.float32


def test_equal_values_and_flat_maps_take_the_first_and_are_not_moved() -> None:
    maps = np.zeros((1, 3, 8, 8), np.float32)
    maps[0, 1, 4, 3:5] = 1  # two equal peaks: the first, moved towards the second
    maps[0, 2, 4, 4] = 1  # neighbours alike
    np.testing.assert_array_equal(points_of(task(), maps)[0, :, :2], [[0, 0], [13, 16], [16, 16]])


def test_the_mean_under_a_softmax() -> None:
    maps = RANDOM.standard_normal((2, 3, 7, 9)).astype(np.float32)
    found = points_of(task(decoding="soft-argmax", beta=2.5), maps)
    shares = np.exp(2.5 * maps.astype(np.float64))
    shares /= shares.sum(axis=(2, 3), keepdims=True)
    rows, columns = np.mgrid[:7, :9]
    np.testing.assert_allclose(found[..., 0], 4 * (shares * columns).sum(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found[..., 1], 4 * (shares * rows).sum(axis=(2, 3)), rtol=1e-5)
    sharp = points_of(task(decoding="soft-argmax", beta=1e5), maps)
    peaks = maps.reshape(2, 3, -1).argmax(axis=2)
    np.testing.assert_allclose(sharp[..., 0], 4 * (peaks % 9), atol=1e-2)


@pytest.mark.parametrize(
    ("fit", "resize_to"), [("stretch", ()), ("letterbox", ()), ("crop", (64,))], ids=["stretch", "letterbox", "crop"]
)
def test_points_are_in_the_images_own_frame(fit: Any, resize_to: tuple[int, ...]) -> None:
    """A dot that is drawn into an image comes back where it was drawn."""
    height, width, at = 90, 150, (95.0, 40.0)
    spot = place(height, width, Preprocessing(64, 64, fit=fit, resize_to=resize_to))
    x, y = at[0] * spot.scale[1] + spot.box[1], at[1] * spot.scale[0] + spot.box[0]
    maps = np.zeros((1, 3, 16, 16), np.float32)
    rows, columns = np.mgrid[:16, :16]
    maps[0] = np.exp(-((columns - x / 4) ** 2 + (rows - y / 4) ** 2) / 4)
    for form, output in (("logits", maps), ("decoded", points_of(task(), maps))):
        found = decode(task(), output, form, [spot])[0]  # type: ignore[arg-type]
        assert isinstance(found.value, Keypoints)
        assert found.value.points.shape == (3, 2)
        one = np.array([4 / spot.scale[1], 4 / spot.scale[0]])  # a heatmap's pixel in the image
        assert (np.abs(found.value.points[0] - at) <= 0.5 * one).all()
        assert found.value.scores.max() > 0.8
    assert decode(task(), maps, "logits", [spot])[0] == decode(task(), points_of(task(), maps), "decoded", [spot])[0]


def predicted(**fields: Any) -> tuple[Task, Any]:
    of = task(**fields)
    return of, decode(of, np.array([[[10, 20, 0.9], [30.25, 20, 0.5], [30, 44, -0.1]]], np.float32), "decoded")[0]


def test_words_and_summaries() -> None:
    _, found = predicted()
    assert str(found) == "nose (10.0, 20.0) 0.90, left (30.2, 20.0) 0.50, right (30.0, 44.0) -0.10"
    rows: Any = found.to_dict()["points"]
    assert rows[1] == {"name": "left", "x": 30.25, "y": 20.0, "score": 0.5}
    many = decode(task(5), RANDOM.random((1, 5, 3)).astype(np.float32), "decoded")[0]
    assert str(many).startswith("0 (")
    assert str(many).endswith(", 2 more")
    _, same = predicted()
    assert found == same
    assert found != decode(task(), np.zeros((1, 3, 3), np.float32), "decoded")[0]
    lost = decode(task(), np.full((1, 3, 4, 4), np.nan, np.float32), "logits")[0]
    assert not lost.finite
    assert lost.to_dict()["finite"] is False
    assert lost.to_dict()["points"][0]["score"] is None  # type: ignore[index]


def test_marks_are_points_and_the_skeletons_lines() -> None:
    of, found = predicted(skeleton=(("nose", "left"), (1, 2)))
    marks = of.of.marks(of, found)  # type: ignore[attr-defined]
    assert [(mark.x, mark.y, mark.text) for mark in marks if isinstance(mark, Point)] == [
        (10, 20, "nose"),
        (30.25, 20, "left"),
    ]
    assert [(mark.start, mark.end) for mark in marks if isinstance(mark, Line)] == [((10, 20), (30.25, 20))]
    of, found = predicted(skeleton=((0, 1), (1, 2)), least_score=-1.0)
    marks = of.of.marks(of, found)  # type: ignore[attr-defined]
    assert sum(isinstance(mark, Line) for mark in marks) == 2
    sheet = show(np.full((60, 60, 3), 255, np.uint8), {"p": found}, [of])
    assert isinstance(sheet, Image.Image)
    pixels = np.asarray(sheet).reshape(-1, 3)
    for mark in marks:
        assert (pixels == mark.colour).all(axis=1).any()


def test_tasks_as_text_and_in_a_manifest() -> None:
    found = parse_task(
        "p=keypoints:nose,left,right;output=hm;skeleton=nose-left,1-2;sigmas=0.1,0.2,0.3;pck_size=left,2;pck_threshold=0.5;"
        "decoding=soft-argmax;beta=100;least_score=0.3"
    )
    options = KeypointOptions("soft-argmax", 100.0, (("nose", "left"), (1, 2)), 0.3, (0.1, 0.2, 0.3), 0.5, ("left", 2))
    assert found == Task("p", "keypoints", labels=NAMES, output="hm", options=options)
    sized = found.with_size(3, stride=4)
    assert Task.from_dict(sized.to_dict()) == sized
    assert parse_task("p=keypoints;pck_size=image").options.pck_size == "image"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p=keypoints:a,b;skeleton=a-c", "there is no point 'c'; the points are a, b"),
        ("p=keypoints;skeleton=a-b", "there is no point 'a'; the points have no names: give labels"),
        ("p=keypoints:a,b;skeleton=0-2", "there is no point 2; they are 0 to 1"),
        ("p=keypoints:a,b;skeleton=a", "skeleton cannot be 'a'; write pairs of points"),
        ("p=keypoints:a,b;sigmas=0.1", "has 1 sigmas for 2 labels; give one per point"),
        ("p=keypoints:a,b;sigmas=0.1,-1", "sigmas"),
        ("p=keypoints:a,b;pck_size=a,a", "names one point twice"),
        ("p=keypoints:a,b;pck_size=head", "pck_size"),
        ("p=keypoints:a,b;decoding=max", "decoding"),
        ("p=keypoints:a,b;beta=0", "beta"),
        ("p=keypoints:a,b;beta=x", "beta cannot be 'x'; write a number above 0"),
        ("p=keypoints:a,b;least_score=inf", "least_score: inf is not a number"),
        ("p=keypoints:a,b;unit=m", "has a unit, this is keypoints"),
        ("p=keypoints:a,b;threshold=0.3", "keypoints has no threshold"),
        ("p=keypoints:a,b;activation=sigmoid", "taken as they are"),
    ],
)
def test_what_does_not_fit_is_said(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


def test_sizes_must_fit() -> None:
    with pytest.raises(TaskError, match="has 3 labels but the network returns 4 heatmaps"):
        Task("p", "keypoints", labels=NAMES).with_size(4)
    with pytest.raises(TaskError, match="has 2 sigmas for 4 heatmaps"):
        Task("p", "keypoints", options=KeypointOptions(sigmas=(0.1, 0.2))).with_size(4)
    with pytest.raises(TaskError, match="there is no point 7; they are 0 to 3"):
        Task("p", "keypoints", options=KeypointOptions(skeleton=((0, 7),))).with_size(4)
