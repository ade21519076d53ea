"""The detection example: its labels are exact, its files are COCO's, and a few steps of training lower every loss."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

EXAMPLE = Path(__file__).parents[2] / "examples" / "detection"
sys.path += [str(EXAMPLE), str(EXAMPLE.parent / "scenes")]  # behind the digits example, which has a ``train``, too

import frames  # noqa: E402
import labels  # noqa: E402
import losses  # noqa: E402
import network  # noqa: E402
import rendering  # noqa: E402
import rooms as data  # noqa: E402
import scoring  # noqa: E402
import shapes  # noqa: E402
import textures  # noqa: E402

NONE = np.zeros(len(data.CONDITIONS), bool)


def module_of(name: str) -> ModuleType:
    """Import a script under a name of its own: the other examples have a ``train``, too."""
    spec = importlib.util.spec_from_file_location(f"detection_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train = module_of("train")


@pytest.fixture(scope="module")
def few() -> data.Rooms:
    return data.generate(24, 64, 96, seed=7)


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
        np.count_nonzero(scoring.overlaps(objects.boxes, objects.boxes) > 0.05) > len(objects)
        for objects in few.objects
    ]
    assert np.mean(overlapping) > 0.3


def test_files_are_what_coco_and_the_toolkit_read(few: data.Rooms, tmp_path: Path) -> None:
    labels.write(few, tmp_path)
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "labels" / "objects.json"))
        mine = [
            {
                "image_id": place + 1,
                "category_id": int(kind) + 1,
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": 1.0,
            }
            for place, objects in enumerate(few.objects)
            for box, kind in zip(objects.boxes, objects.classes, strict=True)
        ]
        found = COCOeval(truth, truth.loadRes(mine), "bbox")
        found.evaluate()
        found.accumulate()
        found.summarize()
    assert found.stats[0] == pytest.approx(1)
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
    rooms = data.Rooms(np.zeros((1, 32, 32, 3), np.uint8), (bare,), np.zeros((1, 32, 32), bool), NONE[None])
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
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "labels" / "objects.json"))
        rows = [
            {
                "image_id": place + 1,
                "category_id": int(kind) + 1,
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": float(score),
            }
            for place, each in enumerate(found)
            for box, score, kind in zip(each.boxes, each.scores, each.classes, strict=True)
        ]
        evaluated = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    mine = scoring.map_50(found, few.objects)
    assert mine == pytest.approx(evaluated.stats[1], abs=1e-9)
    assert 0.1 < mine < 0.9


def test_the_constant_answer_has_the_frequencies_as_scores(few: data.Rooms) -> None:
    constant = scoring.constant_boxes(few)
    counts = np.bincount(np.concatenate([objects.classes for objects in few.objects]))
    for kind, count in enumerate(counts):
        assert constant.scores[constant.classes == kind].sum() == pytest.approx(count / len(few))
    one = data.Rooms(few.images[:1], few.objects[:1], few.floor[:1], few.conditions[:1])
    assert scoring.map_50([scoring.constant_boxes(one)], one.objects) == pytest.approx(1)
    np.testing.assert_array_equal(scoring.constant_floor(one), one.floor[0])
    assert scoring.floor_iou(scoring.constant_floor(one)[None], one.floor) == 1
    np.testing.assert_array_equal(scoring.constant_conditions(one), one.conditions[0])


def test_the_networks_outputs_are_as_documented() -> None:
    with torch.device("meta"):
        outputs = network.make()(torch.empty(2, 3, 64, 96))
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        "boxes_8": (2, 4, 8, 12),
        "scores_8": (2, 3, 8, 12),
        "boxes_16": (2, 4, 4, 6),
        "scores_16": (2, 3, 4, 6),
        "floor": (2, 1, 16, 24),
        "conditions": (2, 4),
    }
    assert len(data.CLASSES) == network.CLASSES
    assert len(data.CONDITIONS) == network.CONDITIONS


def perfect(rooms: data.Rooms) -> tuple[dict[str, torch.Tensor], losses.Truth]:
    """Return outputs that say the truth, and the truth."""
    size = rooms.images.shape[1], rooms.images.shape[2]
    boxes, classes = (torch.stack(part) for part in zip(*(losses.assign(o, size) for o in rooms.objects), strict=True))
    middles, strides = network.places(size)
    distances = torch.cat([middles - boxes[..., :2], boxes[..., 2:] - middles], dim=-1) / strides[:, None]
    logits = torch.where(torch.nn.functional.one_hot(classes + 1, 4)[..., 1:] > 0, 20.0, -20.0)
    outputs, start = {}, 0
    for stride in network.STRIDES:
        height, width = size[0] // stride, size[1] // stride
        part = slice(start, start := start + height * width)
        for name, values in (("boxes", distances), ("scores", logits)):
            outputs[f"{name}_{stride}"] = values[:, part].transpose(1, 2).unflatten(2, (height, width))
    floor = torch.from_numpy(rooms.floor)[:, None].float()
    outputs["floor"] = 40 * floor - 20
    held = torch.from_numpy(rooms.conditions).float()
    outputs["conditions"] = 40 * held - 20
    return outputs, losses.Truth(boxes, classes, floor, held)


def test_perfect_outputs_have_no_loss_and_give_the_objects_back(few: data.Rooms) -> None:
    outputs, truth = perfect(few)
    for name, loss in losses.losses_of(outputs, truth).items():
        assert loss.item() == pytest.approx(0, abs=1e-5), name
    boxes, logits = network.decoded(outputs, (64, 96))
    found = [train.kept(*each) for each in zip(boxes, logits.sigmoid(), strict=True)]
    # an object may be too small for a place of its own, or hidden behind one that suppresses it
    assert scoring.map_50(found, few.objects) > 0.85
    wrong = {**outputs, "scores_8": -outputs["scores_8"]}
    assert losses.losses_of(wrong, truth)["scores"].item() > 1
    wrong = {**outputs, "boxes_8": outputs["boxes_8"] + 1}
    assert losses.losses_of(wrong, truth)["boxes"].item() > 0.1


def test_a_place_answers_for_the_smallest_object_around_it_at_the_level_of_its_size() -> None:
    boxes = np.array([[0.0, 0, 60, 60], [20, 20, 44, 44], [22, 22, 34, 34]])
    objects = data.Objects(boxes, np.array([0, 1, 2]), np.array([9, 9, 9]))
    assigned, classes = losses.assign(objects, (64, 64))
    fine, coarse = classes[:64].reshape(8, 8), classes[64:].reshape(4, 4)
    assert fine[3, 3] == 2  # its middle, 28, is in both
    assert fine[4, 4] == 1  # 36 is behind the smallest
    assert fine[0, 0] == -1
    assert set(fine.unique().tolist()) == {-1, 1, 2}
    assert set(coarse.unique().tolist()) == {-1, 0}
    assert coarse[0, 0] == 0  # 8 is within 24 of 30
    np.testing.assert_array_equal(assigned[:64].reshape(8, 8, 4)[3, 3], boxes[2])
    np.testing.assert_array_equal(assigned[0], np.zeros(4))


def test_images_without_objects_give_no_box_loss_and_no_bad_gradient() -> None:
    bare = data.Objects(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    boxes, classes = losses.assign(bare, (64, 64))
    torch.manual_seed(0)
    outputs = network.make()(torch.randn(2, 3, 64, 64))
    truth = losses.Truth(
        boxes.expand(2, -1, -1), classes.expand(2, -1), torch.zeros(2, 1, 64, 64), torch.zeros(2, network.CONDITIONS)
    )
    found = losses.losses_of(outputs, truth)
    assert found["boxes"].item() == 0
    sum(found.values()).backward()
    assert all(torch.isfinite(loss) for loss in found.values())


def test_mirroring_a_batch_mirrors_boxes_and_floor(few: data.Rooms) -> None:
    pair = data.Rooms(few.images[:2], few.objects[:2], few.floor[:2], few.conditions[:2])
    straight = train.normalised(pair.images)
    seen = set()
    for seed in range(12):
        ((images, truth),) = train.batches(pair, 2, (seed, 0))
        mirrored = not any(torch.equal(images[0], image) for image in straight)
        seen.add(mirrored)
        for place, image in enumerate(images):
            (which,) = (i for i in range(2) if torch.equal(straight[i].flip(-1) if mirrored else straight[i], image))
            flip = (lambda array: array[:, ::-1]) if mirrored else (lambda array: array)
            np.testing.assert_array_equal(truth.floor[place, 0].numpy() > 0, flip(pair.floor[which]))
            objects = pair.objects[which]
            expected = objects.boxes if not mirrored else (96 - objects.boxes)[:, [2, 1, 0, 3]]
            if mirrored:
                expected[:, [1, 3]] = objects.boxes[:, [1, 3]]
            given = {tuple(box) for box in truth.boxes[place][truth.classes[place] >= 0].tolist()}
            assert given
            assert given <= {tuple(box) for box in expected.tolist()}
            np.testing.assert_array_equal(truth.conditions[place].numpy() > 0, pair.conditions[which])
    assert seen == {False, True}


def fitted(few: data.Rooms) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    torch.manual_seed(0)
    small = network.Detector(width=32)
    optimizer = torch.optim.AdamW(small.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    return small, [train.run_epoch(small, few, optimizer, schedule, 8, (0, epoch)) for epoch in range(8)]


def test_a_short_training_lowers_every_loss_and_is_the_same_again(few: data.Rooms) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (first, history), (again, _) = fitted(few), fitted(few)
    finally:
        torch.set_num_threads(threads)
    for name in losses.WEIGHTS:
        assert history[-1][name] < 0.9 * history[0][name], name
    for one, same in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, same)


def test_the_script_writes_what_the_exporter_reads(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--out", str(tmp_path), "--size", "64x96", "--threads", "1"]
    sizes = ["--images", "20", "--test-images", "6", "--epochs", "1", "--batch", "10"]
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, check=True)
    for row in ("epoch 1/1", "network ", "best constant answer"):
        assert row in result.stdout
    network.make().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert len(labels.read(tmp_path / "test")) == 6
    assert len(labels.read(tmp_path / "train")) == 20
    assert (tmp_path / "tasks.toml").exists()


def test_the_defaults_are_those_of_the_demo() -> None:
    arguments: argparse.Namespace = train.parse([])
    assert arguments.size[0] % network.MULTIPLE == arguments.size[1] % network.MULTIPLE == 0
