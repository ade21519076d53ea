"""Keypoints: OKS against pycocotools', PCK by hand, labels from tables, arrays and COCO's JSON, and a bundle's accuracy table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pose_networks import Pose, SimpleBaseline
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.data.arrays import read_arrays
from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.kinds.keypoints.kind import KIND
from mtl_deploy.calibration.kinds.keypoints.metrics import oks, pck
from mtl_deploy.calibration.kinds.keypoints.truth import Truth, place_rows, rows_of
from mtl_deploy.export.cli import main as export
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.kinds.keypoints.options import COCO_SIGMAS, KeypointOptions

NAMES = ("nose", "left", "right")
RANDOM = np.random.default_rng(7)


def task(count: int = 3, **fields: Any) -> Task:
    labels = NAMES if count == 3 else ()
    return Task("p", "keypoints", labels=labels, size=count, stride=4, options=KeypointOptions(**fields))


def placed(of: Task, rows: np.ndarray, height: int = 100, width: int = 200, **fields: Any) -> np.ndarray:
    return place_rows(of, rows, [place(height, width, Preprocessing(64, 64, **fields))] * len(rows))


def coco_file(count: int, people: int = 1) -> dict[str, Any]:
    """Images of 200x100 with random people in COCO's form; some points have no label."""
    annotations = []
    for image in range(count):
        for _ in range(people):
            points = np.column_stack(
                [RANDOM.uniform(0, 200, 17), RANDOM.uniform(0, 100, 17), RANDOM.integers(0, 3, 17)]
            )
            points[0, 2] = 2
            points[points[:, 2] == 0] = 0
            seen = points[points[:, 2] > 0]
            low, high = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "keypoints": points.ravel().tolist(),
                    "num_keypoints": len(seen),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(RANDOM.uniform(100, 4000)),
                }
            )
    images = [{"id": i + 1, "file_name": f"{i:03}.png", "height": 100, "width": 200} for i in range(count)]
    names = [f"point_{place}" for place in range(17)]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }


def by_pycocotools(data: dict[str, Any], answers: np.ndarray) -> list[float]:
    truth = COCO()
    truth.dataset = data
    truth.createIndex()
    results = [
        {
            "image_id": place + 1,
            "category_id": 1,
            "keypoints": np.column_stack([points, np.ones(17)]).ravel().tolist(),
            "score": 1.0,
        }
        for place, points in enumerate(answers)
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluation._prepare()
    return [float(evaluation.computeOks(place + 1, 1)[0, 0]) for place in range(len(answers))]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(12):
        small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((200, 100), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "images" / f"{number:03}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_oks_is_pycocotools_from_the_file_to_the_figure(photos: Path, fit: Any) -> None:
    data = coco_file(12)
    (photos.parent / "labels").mkdir()
    (photos.parent / "labels" / "p.json").write_text(json.dumps(data))
    of = task(17)
    preprocessing = Preprocessing(64, 64, fit=fit)
    loaded = load_data(photos, preprocessing, [of], labels=photos.parent / "labels")
    rows = loaded.labels["p"]
    truth = Truth.of(rows)
    answers = truth.points + RANDOM.normal(0, 5, truth.points.shape)
    spot = place(100, 200, preprocessing)
    there = answers * (spot.scale[1], spot.scale[0]) + (spot.box[1], spot.box[0])  # as the graph would answer
    outputs = np.concatenate([there, np.ones((12, 17, 1))], axis=2).reshape(12, -1)
    expected = by_pycocotools(data, answers)
    assert 0.02 < min(expected) < max(expected) < 0.98
    np.testing.assert_allclose(oks(answers, truth, COCO_SIGMAS), expected, rtol=1e-9)
    found = KIND.figures(of, outputs, rows, True)
    assert found["oks"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert found["pck"] == pytest.approx(KIND.per_image(of, outputs, rows, True).mean())


def test_sigmas_are_the_tasks_own_or_there_is_no_oks() -> None:
    points = np.array([[[10.0, 20, 1], [30, 40, 1], [50, 60, 0]]])
    answers = np.array([[12.0, 20, 1, 30, 44, 1, 0, 0, 1]])
    for own, expected in (((), None), ((0.1, 0.2, 0.3), (0.1, 0.2))):
        of = task(sigmas=own)
        spot = place(100, 200, Preprocessing(100, 200))
        rows = place_rows(of, rows_of(points, np.array([900.0])), [spot])
        found = KIND.figures(of, answers, rows, True)
        if expected is None:
            assert set(found) == {"pck"}
            continue
        by_hand = [np.exp(-(d**2) / (2 * 900 * (2 * s) ** 2)) for d, s in zip((2, 4), expected, strict=True)]
        assert found["oks"] == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize(
    ("size", "reach"),
    [("box", 0.2 * 100), ("image", 0.2 * np.hypot(200, 100)), (("nose", 1), 0.2 * 100), ((0, "right"), 0.2 * 50)],
)
def test_pck_is_relative_to_what_the_task_says(size: Any, reach: float) -> None:
    of = task(pck_size=size)
    points = np.array([[[20.0, 20, 2], [120, 20, 1], [20, 70, 1]]] * 2)
    rows = placed(of, rows_of(points))
    truth = Truth.of(rows)
    answers = truth.points + np.array([[0.0, 0], [0, reach - 1e-6], [reach + 1e-6, 0]])
    np.testing.assert_allclose(pck(of, answers, truth), 2 / 3)
    assert pck(of, np.full_like(answers, np.nan), truth).max() == 0


def test_points_without_a_label_do_not_count_and_images_without_a_size_neither() -> None:
    of = task(pck_size=("left", "right"))
    points = np.array(
        [
            [[1.0, 2, 1], [3, 4, 1], [10, 4, 1]],
            [[1.0, 2, 1], [3, 4, 1], [0, 0, 0]],  # no distance from left to right
            [[0.0, 0, 0], [0, 0, 0], [0, 0, 0]],
        ]
    )
    rows = placed(of, rows_of(points))
    np.testing.assert_array_equal(np.isnan(rows).any(axis=1), [False, True, True])
    assert np.isnan(KIND.per_image(of, np.zeros((3, 9)), rows, True)).tolist() == [False, True, True]
    cut = placed(task(), rows_of(np.array([[[99.0, 50, 1], [5, 50, 1], [130, 60, 1]]])), fit="crop", resize_to=(64,))
    np.testing.assert_array_equal(Truth.of(cut).labelled, [[True, False, True]])


def test_answers_are_compared_in_the_images_own_frame() -> None:
    of = task(pck_size="image", pck_threshold=10 / np.hypot(200, 100))
    points = np.array([[[20.0, 20, 1], [120, 20, 1], [20, 70, 1]]])
    for fields in ({"fit": "stretch"}, {"fit": "letterbox"}, {"fit": "crop", "resize_to": (64,)}):
        spot = place(100, 200, Preprocessing(64, 64, **fields))  # type: ignore[arg-type]
        inner = points + np.array([40.0, 5, 0])  # inside the crop
        rows = place_rows(of, rows_of(inner), [spot])
        there = (inner[..., :2] + (9.0, 0.0)) * (spot.scale[1], spot.scale[0]) + (spot.box[1], spot.box[0])
        outputs = np.concatenate([there, np.ones((1, 3, 1))], axis=2).reshape(1, -1)
        assert KIND.figures(of, outputs, rows, True)["pck"] == 1
        outputs[:, ::3] += 2 * spot.scale[1]  # 11 pixels of the image
        assert KIND.figures(of, outputs, rows, True)["pck"] == 0


def test_labels_in_a_table(photos: Path) -> None:
    of = task()
    file = photos.parent / "labels.csv"
    lines = ["file;p.nose.x;p.nose.y;p.left.x;p.left.y;p.right.x;p.right.y"]
    lines += [
        "000.png;1,5;2;3;4;5;6",
        "001.png;1;2;;;5;6",
        "002.png;;;;;;",
        "003.png;1;;3;4;5;6",
        "004.png;x;2;3;4;5;6",
    ]
    file.write_text("\n".join([*lines, *(f"{number:03}.png;9;8;7;6;5;4" for number in range(5, 12))]))
    data = load_data(photos, Preprocessing(64, 64), [of], labels=file)
    truth = Truth.of(data.labels["p"])
    np.testing.assert_array_equal(truth.points[0], [[1.5, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(truth.labelled[1], [True, False, True])
    assert np.isnan(data.labels["p"][2:5]).all()
    said = "\n".join(data.warnings)
    assert "one of p.nose.x and p.nose.y is empty" in said
    assert "p.nose.x 'x' is not a number" in said
    file.write_text("file,p.nose.x,p.nose.y\n000.png,1,2\n")
    with pytest.raises(OptionError, match=r"columns of task 'p' are missing: p\.left\.x"):
        load_data(photos, Preprocessing(64, 64), [of], labels=file)
    file.write_text("file,age,p.0.x,p.0.y,p.1.x,p.1.y,p.2.x,p.2.y\n000.png,4,1,2,3,4,5,6\n")
    with pytest.raises(OptionError, match=r"no columns called p\.0\.x, .* its columns are p\.nose\.x, p\.nose\.y"):
        load_data(photos, Preprocessing(64, 64), [of, Task("age", "regression", size=1)], labels=file)
    assert KIND.columns(Task("q", "keypoints", size=2)) == ("q.0.x", "q.0.y", "q.1.x", "q.1.y")


def test_labels_in_arrays(tmp_path: Path) -> None:
    of = task()
    points = RANDOM.uniform(10, 90, (4, 3, 2))
    points[1, 2] = np.nan
    images = RANDOM.integers(0, 256, (4, 100, 200, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, **{"labels/p": points})
    truth = Truth.of(read_arrays(tmp_path / "a.npz", Preprocessing(64, 64), [of], None, 0).labels["p"])
    np.testing.assert_array_equal(truth.points[0], points[0])
    np.testing.assert_array_equal(truth.labelled[1], [True, True, False])
    np.testing.assert_allclose(truth.scale[0], [64 / 200, 64 / 100])
    seen = np.concatenate([points, np.full((4, 3, 1), 2)], axis=2)
    seen[0, 0, 2] = 0
    assert Truth.of(KIND.from_array(of, seen, "a")).labelled[0].tolist() == [False, True, True]
    for shape in ((4, 3), (4, 2, 2), (4, 3, 4)):
        with pytest.raises(ImageError, match=r"expected \(N, 3, 2\), x and y in the image's pixels, or"):
            KIND.from_array(of, np.zeros(shape), "a")


def changed(data: dict[str, Any], what: str) -> dict[str, Any]:
    first = data["annotations"][0]
    if what == "count":
        first["keypoints"] = first["keypoints"][:-3]
    elif what == "numbers":
        first["keypoints"] = first["keypoints"][:-1]
    elif what == "names":
        for image in data["images"]:
            image["file_name"] = "other" + image["file_name"]
    elif what == "schema":
        del data["images"]
    return data


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("count", "has 48 numbers for keypoints; expected x, y and visibility of 17 points"),
        ("numbers", "has 50 numbers for keypoints"),
        ("names", "no points for any of the 12 images, such as 000.png; its first is 'other000.png'"),
        ("schema", "cannot be read as COCO's keypoints"),
    ],
)
def test_a_coco_file_that_cannot_be_used_is_refused(photos: Path, what: str, message: str) -> None:
    folder = photos.parent / "labels"
    folder.mkdir()
    (folder / "p.json").write_text(json.dumps(changed(coco_file(12), what)))
    with pytest.raises(OptionError, match=message):
        load_data(photos, Preprocessing(64, 64), [task(17)], labels=folder)


def test_a_coco_file_with_names_and_several_people(photos: Path) -> None:
    folder = photos.parent / "labels"
    folder.mkdir()
    data = coco_file(11, people=2)
    (folder / "p.json").write_text(json.dumps(data))
    of = Task("p", "keypoints", labels=("point_3", "point_1"), size=2, stride=4)
    for annotation in data["annotations"]:
        annotation["keypoints"][5] = annotation["keypoints"][11] = 2
    (folder / "p.json").write_text(json.dumps(data))
    loaded = load_data(photos, Preprocessing(64, 64), [of], labels=folder)
    largest = max(data["annotations"][:2], key=lambda one: one["area"])
    points = np.reshape(largest["keypoints"], (17, 3))
    np.testing.assert_allclose(Truth.of(loaded.labels["p"]).points[0], points[[3, 1], :2])
    said = "\n".join(loaded.warnings)
    assert "p: p.json has no points for 1 of 12 images" in said
    assert "11 images have several objects (000.png, 001.png, 002.png, ...), of which the largest counts" in said
    strange = Task("p", "keypoints", labels=("point_3", "tail"), size=2, stride=4)
    with pytest.raises(OptionError, match="has no point 'tail' of task 'p'; its points are point_0"):
        load_data(photos, Preprocessing(64, 64), [strange], labels=folder)


def test_what_an_answer_that_does_not_look_would_get() -> None:
    of = task(pck_size="image", pck_threshold=0.05)
    points = np.concatenate([RANDOM.uniform(0, 100, (30, 3, 2)), np.ones((30, 3, 1))], axis=2)
    rows = placed(of, rows_of(points))
    usual = KIND.usual(of, np.zeros((30, 9)), rows, True)
    assert usual is not None
    middle = np.median(points[..., :2], axis=0)
    away = np.linalg.norm(points[..., :2] - middle, axis=2)
    np.testing.assert_allclose(usual.per_image, (away <= 0.05 * np.hypot(200, 100)).mean(axis=1))
    assert usual.room == pytest.approx(1 - usual.per_image.mean())
    same = placed(of, rows_of(points[:1].repeat(4, axis=0)))
    assert KIND.usual(of, np.zeros((4, 9)), same, True) is None


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
def test_a_bundle_is_calibrated_and_judged(tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Pose().state_dict(), tmp_path / "pose.pt")
    names = "nose,left,right,hip,foot"
    tasks = ["--task", f"points=keypoints:{names};sigmas=0.1,0.1,0.1,0.1,0.1", "--task", "stands=binary"]
    model = [str(tmp_path / "pose.pt"), "--model", "pose_networks:Pose", "--image-size", "64x64", *tasks]
    common = ["--threads", "1", "--engine", "none", "--no-separate", "-q", "--outputs", outputs]
    assert export([*model, *common, "-o", str(tmp_path / "a.mtl")]) == 0
    (tmp_path / "images").mkdir()
    lines = ["file," + ",".join(f"points.{name}.{axis}" for name in names.split(",") for axis in "xy")]
    with load(tmp_path / "a.mtl") as loaded:
        for number in range(100):
            small = np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
            path = tmp_path / "images" / f"{number:03}.png"
            Image.fromarray(small).resize((96, 80), Image.Resampling.BICUBIC).save(path)
            points = loaded.predict(path)["points"].value.points  # its own answers are the truth
            lines.append(f"{path.name}," + ",".join(f"{number:.4f}" for number in points.ravel()))
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = ["--calibration-data", str(tmp_path / "images"), "--labels", str(tmp_path / "labels.csv"), "--threads", "1"]
    target = tmp_path / "int8.mtl"
    assert calibrate([str(tmp_path / "a.mtl"), *data, "--max-drop", "points=50%", "-q", "-o", str(target)]) == 0
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    cell, best = matrix.cell("points", "int8-cpu"), matrix.cell("points", "fp32")
    assert best.metrics == {"pck": 1.0, "oks": pytest.approx(1.0, abs=1e-4)}
    assert 0.5 < cell.metrics["pck"] < 1
    assert cell.unit == "pixels"
    assert cell.drop == pytest.approx(1 - cell.metrics["pck"])
    table = matrix.text()
    assert "PCK, %" in table
    assert "OKS, %" in table
    capsys.readouterr()
    assert calibrate(["compare", str(tmp_path / "a.mtl"), str(target), *data, "--json"]) == 0
    compared = {row["task"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert compared["points"]["first"]["pck"] == 1.0


def test_bundles_that_fit_images_their_own_way_are_compared(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Pose().state_dict(), tmp_path / "pose.pt")
    model = [str(tmp_path / "pose.pt"), "--model", "pose_networks:Pose", "--image-size", "64x64"]
    tasks = ["--task", "points=keypoints", "--task", "stands=binary", "--precision", "fp32"]
    for fit in ("stretch", "letterbox"):
        common = ["--fit", fit, "--engine", "none", "--no-separate", "-q", "-o", str(tmp_path / f"{fit}.mtl")]
        assert export([*model, *tasks, *common]) == 0
    names = [f"points.{point}.{axis}" for point in range(5) for axis in "xy"]
    lines = [f"{path.name},{','.join(map(str, range(10, 60, 5)))}" for path in sorted(photos.iterdir())]
    (tmp_path / "labels.csv").write_text("\n".join([f"file,{','.join(names)}", *lines]))
    data = ["--calibration-data", str(photos), "--labels", str(tmp_path / "labels.csv"), "--json"]
    capsys.readouterr()
    assert calibrate(["compare", str(tmp_path / "stretch.mtl"), str(tmp_path / "letterbox.mtl"), *data]) == 0
    assert {row["task"] for row in json.loads(capsys.readouterr().out)["tasks"]} == {"points"}


def test_a_public_network_goes_from_its_file_to_a_table_of_pck_and_oks(photos: Path) -> None:
    """Simple Baselines with COCO's JSON as labels."""
    folder = photos.parent
    torch.save(SimpleBaseline().state_dict(), folder / "pose_resnet.pth.tar")
    model = [str(folder / "pose_resnet.pth.tar"), "--model", "pose_networks:SimpleBaseline", "--image-size", "64x48"]
    common = ["--threads", "1", "--engine", "none", "-q", "--task", "p=keypoints;skeleton=5-7,7-9"]
    assert export([*model, *common, "-o", str(folder / "a.mtl")]) == 0
    (folder / "labels").mkdir()
    (folder / "labels" / "p.json").write_text(json.dumps(coco_file(12)))
    data = ["--calibration-data", str(photos), "--labels", str(folder / "labels"), "--threads", "1", "-q"]
    assert calibrate([str(folder / "a.mtl"), *data, "--calibration-method", "minmax", "-o", str(folder / "b.mtl")]) == 0
    cell = AccuracyMatrix.from_dict(open_bundle(folder / "b.mtl").manifest.accuracy).cell("p", "int8-cpu")
    assert set(cell.metrics) == {"pck", "oks"}
    assert 0 < cell.metrics["oks"] < 1
    assert cell.samples == 6


def test_labels_are_the_same_for_networks_of_other_sizes() -> None:
    of, rows = task(), rows_of(np.concatenate([RANDOM.uniform(10, 60, (4, 3, 2)), np.ones((4, 3, 1))], axis=2))
    one, other = placed(of, rows), placed(of, rows, fit="letterbox")
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(KIND.comparable(of, one), KIND.comparable(of, other))
