"""The detection example's network: what answers for what, the losses, a few steps of training, the script."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mtl_deploy.export.cli import main as mtl_export
from mtl_deploy.export.network.task_file import read_task_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "detection"
sys.path.append(str(EXAMPLE))  # behind the digits example, which has a ``train``, too

import labels  # noqa: E402
import losses  # noqa: E402
import network  # noqa: E402
import rooms as data  # noqa: E402
import scoring  # noqa: E402


def module_of(name: str) -> ModuleType:
    """Import a script under a name of its own: the other examples have a ``train``, too."""
    spec = importlib.util.spec_from_file_location(f"detection_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train = module_of("train")
TASKS = ("objects", "floor", "conditions")


@pytest.fixture(scope="module")
def few() -> data.Rooms:
    return data.generate(24, 64, 96, seed=7)


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
    assert scoring.average_precision(found, few.objects)["map_50"] > 0.85
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


def test_the_task_file_is_the_networks_and_the_rooms() -> None:
    tasks = {task.name: task for task in read_task_file(EXAMPLE / "tasks.toml")}
    assert list(tasks) == ["objects", "floor", "conditions"]
    assert tasks["objects"].labels == data.CLASSES
    assert tasks["objects"].options.strides == network.STRIDES
    assert tasks["objects"].options.iou_threshold == train.OVERLAP
    assert tasks["floor"].labels == ("floor",)
    assert tasks["conditions"].labels == data.CONDITIONS


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLE / script), *arguments, "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def export(folder: Path, size: str, images: Path) -> None:
    model = [
        str(folder / "model.pt"),
        "--model",
        "examples.detection.network:make",
        "--tasks",
        str(folder / "tasks.toml"),
    ]
    given = ["--image-size", size, "--images", str(images), "-o", str(folder / "model.mtl"), "--engine", "none"]
    assert mtl_export([*model, *given, "--no-separate", "--threads", "1", "--quiet"]) == 0


def figures(printed: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return FP32's figure and the constant answer's by task and metric, as demo.py prints them."""
    rows = [re.split(r"  +", line.strip()) for line in printed.split("deployed graphs:")[1].splitlines()]
    return {
        (row[0], row[1]): (float(row[2].rstrip(" %")), float(row[-1].rstrip(" %"))) for row in rows if row[0] in TASKS
    }


def test_the_scripts_lead_from_rooms_to_figures_of_the_bundle(tmp_path: Path) -> None:
    sizes = ["--images", "40", "--test-images", "6", "--epochs", "1", "--batch", "10", "--size", "64x96"]
    printed = run("train.py", "--out", str(tmp_path), *sizes)
    for row in ("epoch 1/1", "network ", "best constant answer"):
        assert row in printed
    test = labels.read(tmp_path / "test")
    assert len(test) == 6
    export(tmp_path, "64x96", tmp_path / "train" / "images")
    printed = run("demo.py", str(tmp_path))
    for path in (tmp_path / "test" / "images").glob("*.png"):
        assert path.name in printed
    found = figures(printed)
    assert len(found) == 4
    constant = [scoring.constant_boxes(labels.read(tmp_path / "train"))] * len(test)
    expected = 100 * scoring.average_precision(constant, test.objects)["map_50"]
    assert found["objects", "mAP 50"][1] == pytest.approx(expected, abs=0.051)
    held = scoring.constant_floor(labels.read(tmp_path / "train"))[None]
    assert found["floor", "IoU"][1] == pytest.approx(100 * scoring.floor_iou(held, test.floor), abs=0.051)


@pytest.mark.extended
def test_the_demo_finds_most_objects_of_rooms_that_it_has_not_seen(tmp_path: Path) -> None:
    printed = run("train.py", "--out", str(tmp_path))
    export(tmp_path, "128x160", tmp_path / "test" / "images")
    found = figures(run("demo.py", str(tmp_path)))
    for key, least in {("objects", "mAP 50"): 50, ("floor", "IoU"): 80, ("conditions", "right"): 90}.items():
        assert found[key][0] > max(least, found[key][1] + 10), key
    assert found["objects", "mAP 50"][1] < 15
    (own,) = re.findall(r"^network +(\S+)", printed, flags=re.MULTILINE)  # with PyTorch and torchvision's suppression
    assert found["objects", "mAP 50"][0] == pytest.approx(100 * float(own), abs=1)
