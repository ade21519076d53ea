"""The truth of dense tasks: found by the image's name, brought to the network's size, read late."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.data.dense_labels import LabelFiles, at_size
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

SEGMENTATION = Task("segmentation", "segmentation", labels=("floor", "wall", "box"), size=3, stride=4)
DEPTH = Task("depth", "depth", unit="metres", size=1, stride=4)
NORMALS = Task("normals", "normals", size=3, stride=4)
WEIGHT = Task("weight", "regression", unit="kg", size=1)
TASKS = (SEGMENTATION, DEPTH, NORMALS, WEIGHT)
SIZE = Preprocessing(24, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two subfolders, with the truth of most of them."""
    random = np.random.default_rng(0)
    (tmp_path / "labels" / "normals").mkdir(parents=True)
    for number in range(6):
        inside = Path("a" if number < 3 else "b") / f"{number}.jpg"
        for base in ("images", "labels/segmentation", "labels/depth"):
            (tmp_path / base / inside).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "images" / inside)
        truth = np.full((48, 64), number % 3, np.uint8)
        truth[:24] = 255
        Image.fromarray(truth).save((tmp_path / "labels/segmentation" / inside).with_suffix(".png"))
        if number < 4:
            np.save(
                (tmp_path / "labels/depth" / inside).with_suffix(".npy"), np.full((48, 64), 1.5 + number, np.float32)
            )
    np.save(tmp_path / "labels/normals/2.npy", np.tile(np.array([0, 0, -2.0], np.float32), (48, 64, 1)))
    (tmp_path / "labels" / "labels.csv").write_text("file,weight\na/0.jpg,3.5\nb/4.jpg,4.5\n")
    return tmp_path


def test_a_folder_of_labels_serves_dense_and_vector_tasks(folder: Path) -> None:
    data = load_data(folder / "images", SIZE, TASKS, labels=folder / "labels")
    assert set(data.dense) == {"segmentation", "depth", "normals"}
    assert data.labelled
    np.testing.assert_array_equal(data.labels["weight"], [3.5, np.nan, np.nan, np.nan, 4.5, np.nan])
    assert data.dense["depth"].known.tolist() == [True] * 4 + [False] * 2
    assert data.dense["normals"].known.tolist() == [False, False, True, False, False, False]
    assert any("depth: no label file for 2 of 6 images" in warning for warning in data.warnings)
    truth = data.dense["segmentation"].read(4)
    assert truth is not None
    assert truth.shape == (24, 32)
    assert (truth[:12] == -1).all()
    assert (truth[12:] == 1).all()
    assert data.dense["depth"].read(5) is None
    vector = data.dense["normals"].read(2)
    assert vector is not None
    np.testing.assert_allclose(vector[3, 3], [0, 0, -1])


def test_labels_follow_their_images(folder: Path) -> None:
    data = load_data(folder / "images", SIZE, TASKS, labels=folder / "labels", samples=5, seed=3)
    part = data.parts((0.5, 0.5), seed=1)
    parts = [data.select(part == number) for number in range(2)]
    assert sum(len(part) for part in parts) == 5
    for part in parts:
        truths = part.dense["segmentation"]
        assert len(truths) == len(part)
        for position, image in enumerate(part.images):
            original = next(i for i, other in enumerate(data.images) if (other == image).all())
            np.testing.assert_array_equal(truths.read(position), data.dense["segmentation"].read(original))
    assert parts[0].digest != parts[1].digest


def test_another_truth_is_other_data(folder: Path) -> None:
    before = load_data(folder / "images", SIZE, TASKS, labels=folder / "labels").digest
    np.save(folder / "labels/depth/a/0.npy", np.full((48, 64), 9.0, np.float32))
    assert load_data(folder / "images", SIZE, TASKS, labels=folder / "labels").digest != before


def test_an_archive_holds_dense_labels_too(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    truth = random.integers(0, 3, (4, 24, 32)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images, **{"labels/segmentation": truth})
    data = load_data(tmp_path / "data.npz", SIZE, TASKS)
    np.testing.assert_array_equal(data.dense["segmentation"].read(2), truth[2])
    assert any(warning.startswith("depth: no labels") for warning in data.warnings)
    np.savez(tmp_path / "short.npz", images=images, **{"labels/segmentation": truth[:3]})
    with pytest.raises(ImageError, match="labels/segmentation"):
        load_data(tmp_path / "short.npz", SIZE, TASKS)


def test_nearest_neighbours_mix_no_classes() -> None:
    truth = np.zeros((50, 70), np.uint8)
    truth[:, 35:] = 2
    assert set(np.unique(at_size(SEGMENTATION, truth, SIZE, "test"))) == {0, 2}
    assert set(np.unique(at_size(SEGMENTATION, np.full((5, 7), 200), SIZE, "test"))) == {-1}


def test_a_letterboxs_border_is_not_known() -> None:
    boxed = Preprocessing(32, 32, fit="letterbox")
    depth = at_size(DEPTH, np.full((10, 20), 2.0, np.float32), boxed, "test")
    assert np.isnan(depth[:8]).all()
    assert np.isnan(depth[24:]).all()
    assert (depth[8:24] == 2).all()


def test_depth_without_a_value_is_not_known() -> None:
    truth = np.array([[0.0, -1.0, np.inf, 2.0]], np.float32)
    found = at_size(DEPTH, truth, Preprocessing(1, 4), "test")
    assert np.isnan(found[0, :3]).all()
    assert found[0, 3] == 2


def test_sixteen_bits_are_millimetres_and_pictures_of_normals_the_usual_code(tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 32), 2500, np.uint16)).save(tmp_path / "depth.png")
    Image.fromarray(np.tile(np.array([128, 128, 255], np.uint8), (24, 32, 1))).save(tmp_path / "normals.png")
    metres = LabelFiles(DEPTH, (tmp_path / "depth.png",), SIZE).read(0)
    assert metres is not None
    np.testing.assert_allclose(metres, 2.5)
    vector = LabelFiles(NORMALS, (tmp_path / "normals.png",), SIZE).read(0)
    assert vector is not None
    np.testing.assert_allclose(vector[0, 0], [0, 0, 1], atol=0.01)


@pytest.mark.parametrize(
    ("task", "array", "message"),
    [
        (SEGMENTATION, np.zeros((4, 4, 3), np.uint8), "label map for segmentation is"),
        (SEGMENTATION, np.zeros((4, 4), np.float32), "class indices"),
        (NORMALS, np.zeros((4, 4), np.float32), r"\(H, W, 3\)"),
        (DEPTH, np.zeros((4, 4), np.complex64), "numbers"),
    ],
)
def test_truths_of_another_form_are_refused(task: Task, array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        at_size(task, array, SIZE, "test")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "eight.png")
    for name, message in (("bad.png", "bad.png"), ("bad.npy", "bad.npy"), ("eight.png", "8 bits")):
        with pytest.raises(ImageError, match=message):
            LabelFiles(DEPTH, (tmp_path / name,), SIZE).read(0)


def test_folders_without_any_label_are_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="neither"):
        load_data(folder / "images", SIZE, TASKS, labels=folder / "images")
    (folder / "other" / "depth").mkdir(parents=True)
    with pytest.raises(OptionError, match="no label file for any of the 6 images"):
        load_data(folder / "images", SIZE, TASKS, labels=folder / "other")


def test_a_table_of_other_things_beside_label_files_is_left_out_and_said(folder: Path) -> None:
    for tasks, said in (
        ((SEGMENTATION, DEPTH), "no task of this network has its labels in a table"),
        ((SEGMENTATION, Task("age", "regression", size=1)), "no column is named after a task"),
    ):
        data = load_data(folder / "images", SIZE, tasks, labels=folder / "labels")
        assert "segmentation" in data.dense
        assert [said in warning for warning in data.warnings].count(True) == 1
        with pytest.raises(OptionError, match=said):  # where the table is all there is, it was meant
            load_data(folder / "images", SIZE, tasks, labels=folder / "labels" / "labels.csv")
    (folder / "alone").mkdir()
    (folder / "labels" / "labels.csv").rename(folder / "alone" / "labels.csv")
    with pytest.raises(OptionError, match="no task of this network has its labels in a table"):
        load_data(folder / "images", SIZE, (SEGMENTATION,), labels=folder / "alone")


def test_labels_that_no_task_reads_are_an_error_with_the_way_on(folder: Path) -> None:
    cars = Task("cars", "detection", labels=("car", "bus"), options=DetectionOptions(classes=2, input_size=(24, 32)))
    (folder / "empty" / "cars").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"holds no labels that a task .* in a file TASK.json"):
        load_data(folder / "images", SIZE, (cars,), labels=folder / "empty")
    images = [{"id": 1, "file_name": "a/0.jpg", "width": 64, "height": 48}]
    ships = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "ship"}]}
    (folder / "ships.json").write_text(json.dumps(ships))
    with pytest.raises(OptionError, match="they are ship, the classes car, bus"):
        load_data(folder / "images", SIZE, (cars, WEIGHT), labels=folder / "ships.json")
