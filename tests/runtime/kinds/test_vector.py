"""Named values: fields and their misuse, coordinates through stretch, letterbox and crop, words, JSON and marks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import Task, TaskError
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import load_pixels
from mtl_deploy.runtime.kinds.vector.values import Values
from mtl_deploy.runtime.predictions.decoding import decode, kind_of
from mtl_deploy.runtime.predictions.drawing import Box, Point

EYES = ("left_eye.x", "left_eye.y", "right_eye.x", "right_eye.y")


def vector(size: int = 0, **fields: Any) -> Task:
    return Task.from_dict({"name": "v", "kind": "vector", "size": size, **fields})


def test_a_task_file_the_manifest_and_a_command_line_say_the_same() -> None:
    text = "v=vector:left_eye,right_eye;order=planes;frame=unit;normaliser=left_eye,right_eye;scale=0.5;offset=0.5"
    task = parse_task(text)
    made = vector(
        names=["left_eye", "right_eye"],
        order="planes",
        frame="unit",
        normaliser=["left_eye", "right_eye"],
        scale=0.5,
        offset=0.5,
    )
    assert task == made
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert vector(4).with_size(4) == vector(4)
    assert parse_task("v=vector:yaw,pitch;units=degrees,radians;scales=2,3;offsets=1,0").options.scales == (2.0, 3.0)
    assert parse_task("v=vector:a.x,a.y;frame=input;normaliser=64.5").options.normaliser == 64.5
    assert parse_task("v=vector;unit=mm").unit == "mm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v=vector:a,a", "names repeat: a"),
        ("v=vector:a,A", "names repeat: a"),
        ("v=vector:a,,b", "is no name of a value"),
        ("v=vector:a,b;frame=unit", "no value is one by its name; give names that end in .x and .y"),
        ("v=vector:a,b;frame=pixels", "is not one of"),
        ("v=vector:a,b;order=rows", "is not one of"),
        ("v=vector:a,b;unit=m;units=m,s", "unit is that of all values, units has one for each"),
        ("v=vector:a,b;scale=2;scales=2,3", "scale is that of all values, scales has one for each"),
        ("v=vector:a,b;scales=2,x", "scales cannot be '2,x'; write one number per value"),
        ("v=vector:a,b;offsets=nan,1", "nan is not a number"),
        ("v=vector:a.x,a.y;normaliser=a,b", "normaliser: no point is called 'b'; the points are a"),
        ("v=vector:a.x,a.y;normaliser=a,a", "the two points are one"),
        ("v=vector:a.x,a.y;normaliser=image", "needs coordinates of the image: give the frame"),
        ("v=vector:a.x,a.y;normaliser=0", "normaliser"),
        ("v=vector:yaw,pitch;normaliser=2", "no two values are called NAME.x and NAME.y"),
        ("v=vector:a;labels=b", "has a unit, not labels"),
        ("v=vector:a;activation=sigmoid", "values are taken as they are"),
        ("v=regression;frame=unit", "no field=value with one of these fields"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message.replace("(", r"\(")):
        parse_task(text)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"names": ["a", "b"]}, 3, "2 names for 3 values per sample"),
        ({"names": ["a", "b"], "order": "pairs"}, 6, "2 names for 3 points"),
        ({"order": "planes"}, 5, "order planes is of points with x and y"),
        ({"units": ["m"]}, 2, "1 units for 2 values"),
        ({"scales": [1, 2, 3]}, 2, "3 scales for 2 values"),
        ({"order": "pairs", "normaliser": ["0", "9"], "frame": "unit"}, 8, "no point is called '9'"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(fields: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_dict({"name": "v", "kind": "vector", **fields}).with_size(size)


def test_only_a_vector_has_these_fields() -> None:
    with pytest.raises(TaskError, match="unknown field 'frame'; only vector"):
        Task.from_dict({"name": "v", "kind": "regression", "frame": "unit"})


@pytest.mark.parametrize("frame", ["input", "unit"])
@pytest.mark.parametrize(
    "fit",
    [{}, {"fit": "letterbox"}, {"fit": "crop", "resize_to": (50,)}, {"fit": "crop", "resize_to": (30, 70)}],
    ids=["stretch", "letterbox", "crop", "crop to both"],
)
@pytest.mark.parametrize("size", [(120, 200), (200, 120), (31, 77)])
def test_a_point_comes_back_to_where_the_image_has_it(fit: dict[str, Any], size: tuple[int, int], frame: str) -> None:
    """A bright square is found in what the runtime makes of an image; its place there leads back to its place in the image."""
    preprocessing = Preprocessing(40, 60, input="uint8", **fit)
    height, width = size
    centre = np.array([width * 0.5 + 4, height * 0.5 - 2])  # x, y
    image = np.zeros((height, width, 3), np.uint8)
    image[round(centre[1]) - 5 : round(centre[1]) + 5, round(centre[0]) - 5 : round(centre[0]) + 5] = 255
    true = np.array([round(centre[0]), round(centre[1])], float)
    pixels, placement = load_pixels(image, preprocessing)
    light = np.asarray(pixels, float)[..., 0]
    if fit.get("fit") == "letterbox":
        top, left, high, wide = placement.box
        inner = np.zeros_like(light)
        inner[top : top + high, left : left + wide] = light[top : top + high, left : left + wide]
        light = inner
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    seen = np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()
    given = seen / (60, 40) if frame == "unit" else seen
    task = vector(4, names=["p.x", "p.y", "p.width", "score"], frame=frame)
    wide = 10 * placement.scale[1] / (60 if frame == "unit" else 1)
    (found,) = decode(task, np.array([[*given, wide, 0.25]], np.float32), "decoded", [placement])
    one = 1 / np.array(placement.scale)[::-1]  # a pixel of the input
    assert np.abs(np.array([found.value["p.x"], found.value["p.y"]]) - true).max() < 0.3 * one.max()
    assert found.value["p.width"] == pytest.approx(10, rel=1e-4)
    assert found.value["score"] == pytest.approx(0.25)
    assert found.value.units == ("pixels", "pixels", "pixels", None)


def test_raw_and_decoded_values_are_one_prediction() -> None:
    task = vector(4, names=list(EYES), scales=[2, 3, 4, 5], offsets=[1, 1, 0, 0], frame="input")
    raw = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    placement = place(30, 60, Preprocessing(32, 32, fit="letterbox"))
    decoded = raw * np.float32([2, 3, 4, 5]) + np.float32([1, 1, 0, 0])
    one, other = decode(task, raw, "logits", [placement] * 5), decode(task, decoded, "decoded", [placement] * 5)
    assert one == other
    assert one[0] != other[1]
    assert len(decode(task, raw, "logits", [placement] * 3)) == 3, "a batch's padding is decoded"


def test_words_and_json() -> None:
    found = decode(vector(4, names=list(EYES), unit="mm"), np.array([[1, 2.5, 3, 4]], np.float32), "decoded")[0]
    assert str(found) == "left_eye (1, 2.5), right_eye (3, 4) mm"
    assert found.to_dict() == {"values": dict(zip(EYES, (1, 2.5, 3, 4), strict=True)), "unit": "mm"}
    assert found.value["right_eye"] == (3, 4)
    assert found.value["left_eye.y"] == 2.5
    assert np.asarray(found.value).tolist() == [1, 2.5, 3, 4]
    assert len(found.value) == 4
    with pytest.raises(KeyError):
        found.value["nose"]
    mixed = decode(vector(2, names=["yaw", "far"], units=["degrees", "m"]), np.array([[3, 4.0]]), "decoded")[0]
    assert str(mixed) == "yaw 3 degrees, far 4 m"
    assert mixed.to_dict()["units"] == {"yaw": "degrees", "far": "m"}
    unnamed = decode(vector(3), np.array([[1, 2, 3.0]]), "decoded")[0]
    assert str(unnamed) == "1, 2, 3"
    many = decode(vector(196, order="pairs"), np.zeros((1, 196), np.float32), "decoded")[0]
    assert str(many) == "0 (0, 0), 1 (0, 0), 2 (0, 0), 3 (0, 0), ... (98 points)"
    broken = decode(vector(2, names=["a", "b"]), np.array([[np.nan, 1]]), "decoded")[0]
    assert not broken.finite
    assert broken.to_dict() == {"values": {"a": None, "b": 1.0}, "unit": None, "finite": False}
    assert "(NaN or infinite numbers)" in str(broken)
    assert broken != broken


def test_planes_are_all_x_then_all_y() -> None:
    task = vector(6, names=["a", "b", "c"], order="planes")
    found = decode(task, np.arange(6, dtype=np.float32)[None], "decoded")[0]
    assert found.value.points == {"a": (0, 3), "b": (1, 4), "c": (2, 5)}
    pairs = decode(vector(6, order="pairs"), np.arange(6, dtype=np.float32)[None], "decoded")[0]
    assert pairs.value.points == {"0": (0, 1), "1": (2, 3), "2": (4, 5)}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("left", "top", "right", "bottom"), (10, 20, 30, 60)),
        (("x1", "y1", "x2", "y2"), (10, 20, 30, 60)),
        (("cx", "cy", "w", "h"), (20, 40, 20, 40)),
        (("x", "y", "width", "height"), (10, 20, 20, 40)),
    ],
)
def test_a_box_is_drawn_however_it_is_said(names: tuple[str, ...], numbers: tuple[float, ...]) -> None:
    for prefix in ("", "car."):
        task = vector(4, names=[prefix + name for name in names], frame="input")
        found = decode(task, np.array([numbers], np.float32), "decoded")[0]
        (mark,) = kind_of("vector").marks(task, found)
        assert isinstance(mark, Box)
        assert (mark.left, mark.top, mark.right, mark.bottom) == (10, 20, 30, 60)
        assert mark.text == prefix.removesuffix(".")


def test_points_are_drawn_where_values_are_coordinates() -> None:
    for frame, count in (("input", 2), (None, 0)):
        task = vector(4, names=list(EYES), frame=frame)
        found = decode(task, np.array([[1, 2, 3, 4.0]]), "decoded")[0]
        marks = kind_of("vector").marks(task, found)
        assert len(marks) == count
        assert all(isinstance(mark, Point) for mark in marks)


def test_values_are_equal_by_names_units_and_numbers() -> None:
    one = Values(np.float32([1, 2]), ("a", "b"), (None, "m"))
    assert one == Values(np.float32([1, 2]), ("a", "b"), (None, "m"))
    assert one != Values(np.float32([1, 2]), ("a", "c"), (None, "m"))
    assert one != Values(np.float32([1, 2]), ("a", "b"), ("s", "m"))
    assert one != Values(np.float32([1, 3]), ("a", "b"), (None, "m"))
    assert one.to_dict() == {"a": 1.0, "b": 2.0}
