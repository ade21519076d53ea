"""The detection example's rooms: boxes are exact, conditions are what they say, files are COCO's, scores are pycocotools'."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path += [
    str(EXAMPLES / "detection"),
    str(EXAMPLES / "scenes"),
]  # behind the digits example, which has a ``train``, too

import frames  # noqa: E402
import labels  # noqa: E402
import rendering  # noqa: E402
import rooms as data  # noqa: E402
import scoring  # noqa: E402
import shapes  # noqa: E402
import textures  # noqa: E402


@pytest.fixture(scope="module")
def few() -> data.Rooms:
    return data.generate(24, 64, 96, seed=7)


def evaluated(file: Path, rows: list[dict[str, Any]]) -> tuple[COCO, np.ndarray]:
    """Return the truth as pycocotools reads it, and its twelve figures for what was found."""
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        found = COCOeval(truth, truth.loadRes(rows), "bbox")
        found.evaluate()
        found.accumulate()
        found.summarize()
    return truth, found.stats


def row(image: int, kind: int, box: np.ndarray, score: float = 1.0) -> dict[str, Any]:
    corner, size = box[:2].tolist(), (box[2:] - box[:2]).tolist()
    return {"image_id": image + 1, "category_id": int(kind) + 1, "bbox": [*corner, *size], "score": float(score)}


def frame_of(*things: shapes.Shape, size: tuple[int, int] = (96, 128), noise: float = 0.0) -> rendering.Frame:
    """Render things in a white room, seen from its middle along z."""
    plain = textures.Texture("plain", np.full((2, 3), 0.8), 1.0, np.eye(3)[0], np.zeros(3), np.zeros((16, 16, 16)))
    camera = rendering.Camera(np.array([0.0, 1.5, 0.0]), frames.look_at(np.array([0.0, 0.0, 1.0])), *size, size[1] / 2)
    walls = shapes.room(np.array([6.0, 8.0]), 3.0, [plain] * 4)
    return rendering.render(
        rendering.Scene([*walls, *things], camera, np.array([0.0, 2.8, 0.0]), noise=noise), np.random.default_rng(0)
    )


def ball(x: float, y: float, z: float, radius: float) -> shapes.Sphere:
    """Return a sphere; x, y and z are those of :func:`frame_of`'s camera: right, down, forward."""
    return shapes.Sphere(np.array([-x, 1.5 - y, z]), radius, textures.random_texture(np.random.default_rng(0)))


def names_of(*things: shapes.Shape) -> list[str]:
    return [*["wall"] * 6, *(shapes.CLASSES[thing.kind] for thing in things)]


def test_a_spheres_box_is_its_outline_by_the_formula() -> None:
    x, y, z, radius = 0.7, 0.3, 3.0, 0.6
    sphere = ball(x, y, z, radius)
    objects = data.seen(frame_of(sphere, size=(288, 384)), names_of(sphere))
    assert objects.classes.tolist() == [data.CLASSES.index("sphere")]
    expected = []
    for sign in (-1, 1):  # planes through the camera that touch the sphere
        for along, middle in ((x, 192), (y, 144)):
            angle = np.arctan2(along, z) + sign * np.arcsin(radius / np.hypot(along, z))
            expected.append(middle + 192 * np.tan(angle))
    np.testing.assert_allclose(objects.boxes[0], expected, atol=1)
    box = objects.boxes[0]
    assert objects.areas[0] == pytest.approx(np.pi / 4 * np.prod(box[2:] - box[:2]), rel=0.01)


def test_of_what_stands_behind_the_box_is_around_what_is_seen() -> None:
    near, far = ball(0.0, 0.0, 2.0, 0.5), ball(0.9, 0.0, 4.0, 0.5)
    hidden = ball(0.0, 0.0, 5.0, 0.3)
    things = near, far, hidden
    objects = data.seen(frame_of(*things), names_of(*things))
    alone = data.seen(frame_of(far), names_of(far))
    assert len(objects) == 2
    front, behind = objects.boxes
    assert front[0] < behind[0]
    assert behind[0] > alone.boxes[0, 0] + 3  # its left side is behind the nearer one
    np.testing.assert_array_equal(behind[2], alone.boxes[0, 2])
    assert objects.areas[1] < alone.areas[0]


def test_every_pixel_says_whose_it_is_and_every_box_is_tight() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene = frames.random_scene(rng, 48, 64)
        frame = rendering.render(scene, rng)
        kinds = np.array([shape.kind for shape in scene.shapes])
        np.testing.assert_array_equal(kinds[frame.nearest], frame.segmentation)
        objects = data.seen(frame, [shapes.CLASSES[kind] for kind in kinds])
        expected = 0
        for index, kind in enumerate(kinds):
            mask = frame.nearest == index
            if shapes.CLASSES[kind] in data.CLASSES and mask.sum() >= data.LEAST:
                x1, y1, x2, y2 = objects.boxes[expected].astype(int)
                assert mask[y1:y2, x1:x2].sum() == mask.sum() == objects.areas[expected]
                for edge in (mask[y1, x1:x2], mask[y2 - 1, x1:x2], mask[y1:y2, x1], mask[y1:y2, x2 - 1]):
                    assert edge.any()
                assert data.CLASSES[objects.classes[expected]] == shapes.CLASSES[kind]
                expected += 1
        assert expected == len(objects)


def test_each_condition_does_to_an_image_what_its_name_says() -> None:
    sphere = ball(0.0, 0.0, 1.5, 0.4)
    frame = frame_of(sphere)
    images = {
        name: data.expose(frame, np.array([name == each for each in data.CONDITIONS]), np.random.default_rng(1))
        for name in ("none", *data.CONDITIONS)
    }
    np.testing.assert_array_equal(images["none"], frame.image)
    light = {name: image.astype(float) for name, image in images.items()}
    assert (light["dim"] < 0.6 * light["none"] + 1).all()
    warmth = {name: np.mean(image[..., 0] / np.maximum(image[..., 2], 1)) for name, image in light.items()}
    assert warmth["warm"] > 1.2 * warmth["none"]
    for name in ("dim", "haze"):
        assert warmth[name] == pytest.approx(warmth["none"], rel=0.2)
    change = np.abs(light["haze"] - light["none"]).mean(axis=2)
    air = 255 * data.HAZE_LEVEL ** (1 / data.GAMMA)
    far = frame.depth > 7
    assert np.abs(light["haze"][far] - air).mean() < 0.5 * np.abs(light["none"][far] - air).mean()
    through = np.exp(-frame.depth * data.HAZE[1])[..., None]  # at most so much is lost
    bound = 255 * ((light["none"] / 255) ** data.GAMMA * through + data.HAZE_LEVEL * (1 - through)) ** (1 / data.GAMMA)
    assert (np.abs(light["haze"] - light["none"]) <= np.abs(bound - light["none"]) + 1).all()
    assert change.max() > 10
    wall = np.s_[10:20, 60:70]
    assert light["none"][wall].std(axis=(0, 1)).max() < 3
    assert 8 < light["grain"][wall].std(axis=(0, 1)).mean() < 24


def test_a_seed_says_everything_and_all_labels_occur(few: data.Rooms) -> None:
    again, other = data.generate(3, 64, 96, seed=7), data.generate(3, 64, 96, seed=8)
    np.testing.assert_array_equal(again.images, few.images[:3])
    for one, same in zip(again.objects, few.objects, strict=False):
        np.testing.assert_array_equal(one.boxes, same.boxes)
    assert not np.array_equal(other.images, again.images)
    kinds = np.bincount(np.concatenate([objects.classes for objects in few.objects]))
    assert (kinds > 10).all()
    assert (few.conditions.any(axis=0) & ~few.conditions.all(axis=0)).all()
    assert 0.05 < few.floor.mean() < 0.6
    boxes = np.concatenate([objects.boxes for objects in few.objects])
    assert (boxes >= 0).all()
    assert (boxes <= [96, 64, 96, 64]).all()
    overlapping = [
        np.count_nonzero(box_iou(*[torch.from_numpy(objects.boxes)] * 2) > 0.05) > len(objects)
        for objects in few.objects
    ]
    assert np.mean(overlapping) > 0.3


def test_files_are_what_coco_and_the_toolkit_read(few: data.Rooms, tmp_path: Path) -> None:
    labels.write(few, tmp_path)
    mine = [
        row(place, kind, box)
        for place, objects in enumerate(few.objects)
        for box, kind in zip(objects.boxes, objects.classes, strict=True)
    ]
    truth, figures = evaluated(tmp_path / "labels" / "objects.json", mine)
    assert figures[0] == pytest.approx(1)
    assert [entry["name"] for entry in truth.loadCats(truth.getCatIds())] == list(data.CLASSES)
    assert len(truth.getAnnIds()) == sum(len(objects) for objects in few.objects)
    for entry in truth.loadAnns(truth.getAnnIds()):
        assert 0 < entry["area"] <= entry["bbox"][2] * entry["bbox"][3]
    for place, image in enumerate(truth.loadImgs(truth.getImgIds())):
        path = tmp_path / "images" / image["file_name"]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), few.images[place])
        assert (image["height"], image["width"]) == (64, 96)
        mask = np.asarray(Image.open(tmp_path / "labels" / "floor" / image["file_name"]))
        np.testing.assert_array_equal(mask, few.floor[place])
    with (tmp_path / "labels" / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", *data.CONDITIONS]
    assert rows[3] == ["0002.png", *(str(int(held)) for held in few.conditions[2])]
    again = labels.read(tmp_path)
    np.testing.assert_array_equal(again.images, few.images)
    np.testing.assert_array_equal(again.floor, few.floor)
    np.testing.assert_array_equal(again.conditions, few.conditions)
    for one, same in zip(again.objects, few.objects, strict=True):
        for name, values in vars(one).items():
            np.testing.assert_array_equal(values, getattr(same, name))


def test_an_image_without_objects_is_listed_and_read_back(tmp_path: Path) -> None:
    bare = data.Objects(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    rooms = data.Rooms(np.zeros((1, 32, 32, 3), np.uint8), (bare,), np.zeros((1, 32, 32), bool), np.zeros((1, 4), bool))
    labels.write(rooms, tmp_path)
    document = json.loads((tmp_path / "labels" / "objects.json").read_text())
    assert len(document["images"]) == 1
    assert document["annotations"] == []
    (objects,) = labels.read(tmp_path).objects
    assert objects.boxes.shape == (0, 4)


def test_average_precision_is_cocos(few: data.Rooms, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = []
    for objects in few.objects:
        chosen = rng.integers(0, len(objects), 2 * len(objects))
        boxes = objects.boxes[chosen] + rng.normal(0, 3, (len(chosen), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        kinds = np.where(rng.random(len(chosen)) < 0.8, objects.classes[chosen], rng.integers(0, 3, len(chosen)))
        found.append(scoring.Boxes(boxes, rng.random(len(chosen)), kinds))
    labels.write(few, tmp_path)
    rows = [
        row(place, kind, box, score)
        for place, each in enumerate(found)
        for box, score, kind in zip(each.boxes, each.scores, each.classes, strict=True)
    ]
    _, figures = evaluated(tmp_path / "labels" / "objects.json", rows)
    mine = scoring.average_precision(found, few.objects)
    assert [mine["map"], mine["map_50"]] == pytest.approx(figures[:2].tolist(), abs=1e-9)
    assert 0.1 < mine["map_50"] < 0.9


def test_the_constant_answer_has_the_frequencies_as_scores(few: data.Rooms) -> None:
    constant = scoring.constant_boxes(few)
    counts = np.bincount(np.concatenate([objects.classes for objects in few.objects]))
    for kind, count in enumerate(counts):
        assert constant.scores[constant.classes == kind].sum() == pytest.approx(count / len(few))
    one = data.Rooms(few.images[:1], few.objects[:1], few.floor[:1], few.conditions[:1])
    assert scoring.average_precision([scoring.constant_boxes(one)], one.objects)["map"] == pytest.approx(1)
    np.testing.assert_array_equal(scoring.constant_floor(one), one.floor[0])
    assert scoring.floor_iou(scoring.constant_floor(one)[None], one.floor) == 1
    np.testing.assert_array_equal(scoring.constant_conditions(one), one.conditions[0])
