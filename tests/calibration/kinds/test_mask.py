"""Masks: metrics against scikit-learn's, labels in every usual form, and a bundle from photos to an accuracy table."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import wild
from mask_networks import Masks
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.accuracy.row_metrics import drop_interval
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.data.arrays import read_arrays
from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.data.dense_labels import LabelArray, LabelFiles, find_label_files
from mtl_deploy.calibration.kinds.mask.kind import KIND
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.export.cli import main as export
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import ImageError, MtlWarning

TASK = Task("lane", "mask", size=1, stride=4, labels=("lane",))
RANDOM = np.random.default_rng(3)


def rows_of(answers: np.ndarray, truths: np.ndarray) -> np.ndarray:
    return np.array([KIND.row(TASK, one, other) for one, other in zip(answers, truths, strict=True)])


def maps(wrong: float) -> tuple[np.ndarray, np.ndarray]:
    truth = (RANDOM.random((30, 9, 11)) < 0.2).astype(np.int32)
    answer = np.where(RANDOM.random(truth.shape) < wrong, 1 - truth, truth).astype(np.uint8)
    truth[RANDOM.random(truth.shape) < 0.1] = -1
    return answer, truth


def test_metrics_are_scikit_learns_over_all_known_pixels() -> None:
    answer, truth = maps(0.1)
    found = KIND.measured(TASK, rows_of(answer, truth))
    known = truth >= 0
    assert found["iou"] == pytest.approx(jaccard_score(truth[known], answer[known]))
    assert found["dice"] == pytest.approx(f1_score(truth[known], answer[known]))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth[known], answer[known]))
    assert next(iter(found)) == KIND.main == "iou"


def test_draws_for_the_interval_are_computed_from_the_rows_of_each() -> None:
    answer, truth = maps(0.15)
    rows = rows_of(answer, truth)
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), 20).astype(float)
    for count, value in zip(counts, KIND.drawn(TASK, rows, counts), strict=True):
        drawn = np.repeat(np.arange(30), count.astype(int))
        known = truth[drawn] >= 0
        assert value == pytest.approx(jaccard_score(truth[drawn][known], answer[drawn][known]))
    right = rows_of(np.maximum(truth, 0), truth)
    drop, low, high = drop_interval(TASK, rows, right)
    assert 0 < low < drop < high < 1
    assert drop == pytest.approx(1 - KIND.measured(TASK, rows)["iou"])


def test_nothing_to_mark_and_nothing_known() -> None:
    empty, unknown = np.zeros((4, 5), np.int32), np.full((4, 5), -1, np.int32)
    nothing = KIND.row(TASK, empty, empty)[None]
    assert KIND.measured(TASK, nothing) == {"iou": 1.0, "dice": 1.0, "pixel_accuracy": 1.0}
    some = empty.copy()
    some[0, 0] = 1
    assert KIND.measured(TASK, KIND.row(TASK, some, empty)[None])["iou"] == 0.0
    assert not KIND.has_truth(TASK, KIND.row(TASK, some, unknown)[None]).any()
    assert np.isnan(KIND.measured(TASK, KIND.row(TASK, some, unknown)[None])["iou"])


def test_what_an_answer_that_does_not_look_would_get() -> None:
    answer, truth = maps(0.1)
    usual = KIND.usual_rows(TASK, rows_of(answer, truth))
    assert usual is not None
    assert usual.answer == "calling every pixel 'lane'"
    assert KIND.measured(TASK, usual.per_image)["iou"] == pytest.approx((truth == 1).sum() / (truth >= 0).sum())
    assert usual.room == pytest.approx(1 - (truth == 1).sum() / (truth >= 0).sum())
    zeros = np.zeros_like(answer)
    assert KIND.same_answer(TASK, rows_of(zeros, truth)) == " (nothing is 'lane')"
    assert KIND.same_answer(TASK, rows_of(zeros, np.minimum(truth, 0))) is None
    varied = KIND.variation(TASK)
    varied.add(answer)
    share = answer.mean()
    assert varied.ignoring == pytest.approx(2 * share * (1 - share))
    other = np.stack([KIND.spread_row(TASK, answer[0], answer[1]), KIND.spread_row(TASK, answer[1], answer[1])])
    marked = answer[:2].mean()
    assert KIND.relative(TASK, other) == pytest.approx(
        (answer[0] != answer[1]).mean() / 2 / (2 * marked * (1 - marked))
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels" / "lane").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def read(folder: Path) -> list[np.ndarray | None]:
    images = sorted((folder / "images").glob("*.png"))
    found, _ = find_label_files(folder / "labels", folder / "images", images, [TASK], Preprocessing(8, 8))
    return [found["lane"].read(position) for position in range(len(images))]


def save(folder: Path, number: int, pixels: np.ndarray, mode: str = "L") -> None:
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(folder / "labels" / "lane" / f"{number}.png")


def test_pictures_of_0_and_1_with_255_for_unknown(folder: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 255
    save(folder, 0, pixels)  # nothing of a mask in it
    pixels[0, 0] = 1
    save(folder, 1, pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second, third = read(folder)
    assert third is None
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, np.where(np.arange(8) >= 4, -1, 0)[None].repeat(8, 0))
    assert (second == 1).sum() == 1


def test_black_and_white_pictures_are_said_to_be(folder: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    save(folder, 0, pixels)
    pixels[:, 4:] = 255
    save(folder, 1, pixels)
    save(folder, 2, pixels)
    with pytest.warns(MtlWarning, match="hold 0 and 255, so 255 is the mask"):
        found = read(folder)
    np.testing.assert_array_equal(found[1], (pixels == 255).astype(np.int32))
    assert not found[0].any()  # type: ignore[union-attr]


def test_pictures_of_one_bit_and_arrays(folder: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 255
    save(folder, 0, pixels, "1")
    np.save(folder / "labels" / "lane" / "1.npy", pixels == 255)
    np.save(folder / "labels" / "lane" / "2.npy", np.where(pixels == 255, 1, -1))
    one, two, three = read(folder)
    np.testing.assert_array_equal(one, (pixels == 255).astype(np.int32))
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(three, np.where(pixels == 255, 1, -1))
    array = LabelArray(TASK, np.stack([pixels // 255] * 2), Preprocessing(4, 8, fit="letterbox"), "labels/lane")
    truth = array.read(0)
    assert truth is not None
    assert (truth[:, :2] == -1).all()  # the border
    assert (truth[:, 4:6] == 1).all()


def test_arrays_of_0_and_255_are_black_and_white_too(folder: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 255
    for number in range(3):
        np.save(folder / "labels" / "lane" / f"{number}.npy", pixels)
    with pytest.warns(MtlWarning, match="so 255 is the mask"):
        found = read(folder)
    np.testing.assert_array_equal(found[2], pixels // 255)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for labels, expected in ((pixels, 1), (np.where(pixels == 255, 255, 1), -1)):
        np.savez(folder / "a.npz", images=images, **{"labels/lane": np.stack([labels, labels]).astype(np.uint8)})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            arrays = read_arrays(folder / "a.npz", Preprocessing(8, 8), [TASK], None, 0)
        truth = arrays.dense["lane"].read(1)
        assert truth is not None
        assert (truth[:, 4:] == expected).all()
        assert any("so 255 is the mask" in str(one.message) for one in caught) == (expected == 1)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((8, 8), 7), "holds 7; a mask's picture holds 0 and 1 with 255 where it is not known, or 0 and 255"),
        (np.zeros((8, 8, 3)), r"shape \(8, 8, 3\); a label map for mask is \(H, W\)"),
    ],
)
def test_pictures_that_hold_something_else(folder: Path, pixels: np.ndarray, message: str) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "labels" / "lane" / "0.png")
    with pytest.raises(ImageError, match=message):
        read(folder)


def test_arrays_of_classes_are_no_masks(folder: Path) -> None:
    classes = np.tile(np.array([[-1, 0, 1, 2]] * 4, np.int16), (2, 1, 1))
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(folder / "classes.npz", images=images, **{"labels/lane": classes})
    np.save(folder / "labels" / "lane" / "1.npy", classes[0])
    message = "holds 2; a mask's array holds 0 and 1 with 255 where it is not known, or 0 and 255"
    with pytest.raises(ImageError, match=f"'lane' {message}"):
        load_data(folder / "classes.npz", Preprocessing(4, 4), [TASK])
    with pytest.raises(ImageError, match=message):
        LabelFiles(TASK, (folder / "labels" / "lane" / "1.npy",), Preprocessing(4, 4)).read(0)


def test_kinds_of_one_channel_and_two_can_be_compared() -> None:
    assert kind_of(TASK).same_size(TASK, Task("lane", "mask", size=2))
    assert kind_of(TASK).metrics["iou"].share


def photos(folder: Path, height: int, width: int, count: int) -> Path:
    (folder / "images").mkdir()
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{number:03}.png")
    return folder / "images"


def test_a_bundle_is_calibrated_judged_shown_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Masks().state_dict(), tmp_path / "masks.pt")
    model = [str(tmp_path / "masks.pt"), "--model", "mask_networks:Masks", "--image-size", "64x64"]
    tasks = ["--task", "lane=mask:lane", "--task", "area=mask:other,area;threshold=0.6"]
    assert export([*model, *tasks, "--threads", "1", "--engine", "none", "-q", "-o", str(tmp_path / "a.mtl")]) == 0
    images = photos(tmp_path, 64, 64, 120)
    for name in ("lane", "area"):
        (tmp_path / "labels" / name).mkdir(parents=True)
    with load(tmp_path / "a.mtl") as loaded:
        for path in sorted(images.iterdir()):
            for name, prediction in loaded.predict(path).items():
                pixels = 255 * prediction.value if name == "lane" else prediction.value
                Image.fromarray(pixels).save(tmp_path / "labels" / name / path.name)  # its own answers are the truth
    data = ["--calibration-data", str(images), "--labels", str(tmp_path / "labels"), "--threads", "1"]
    target = tmp_path / "int8.mtl"
    assert calibrate([str(tmp_path / "a.mtl"), *data, "--max-drop", "lane=30%", "-q", "-o", str(target)]) == 0
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    for name in ("lane", "area"):
        assert matrix.cell(name, "fp32").metrics["iou"] == 1.0
        cell = matrix.cell(name, "int8-cpu")
        assert 0.3 < cell.metrics["iou"] < 1
        assert cell.drop == pytest.approx(1 - cell.metrics["iou"])
        assert cell.drop_low is not None
        assert cell.drop_low < cell.drop < (cell.drop_high or 0)
    assert "IoU, %" in matrix.text()
    capsys.readouterr()
    assert calibrate(["compare", str(tmp_path / "a.mtl"), str(target), *data, "--json"]) == 0
    tasks_compared = {task["task"]: task for task in json.loads(capsys.readouterr().out)["tasks"]}
    assert tasks_compared["lane"]["first"]["iou"] == 1.0
    shown = tmp_path / "shown.png"
    assert infer([str(target), str(images / "000.png"), "--show", str(shown)]) == 0
    assert "lane " in capsys.readouterr().out
    assert Image.open(shown).width > 900  # the photo and two masks


def test_a_public_network_goes_from_its_file_to_a_table_of_its_masks(tmp_path: Path) -> None:
    """TwinLiteNet: drivable area and lanes, two channels of logits each."""
    checkpoint = wild.checkpoint("twinlitenet", tmp_path)
    (tmp_path / "tasks.toml").write_text(wild.TASKS["twinlitenet"])
    height, width = wild.SIZES["twinlitenet"]
    given = ["--model", "wild:twinlitenet", "--tasks", str(tmp_path / "tasks.toml"), *wild.OPTIONS["twinlitenet"]]
    common = ["--image-size", f"{height}x{width}", "--engine", "none", "--no-separate", "--threads", "1", "-q"]
    assert export([str(checkpoint), *given, *common, "-o", str(tmp_path / "x.mtl")]) == 0
    images = photos(tmp_path, height, width, 24)
    (tmp_path / "labels" / "lanes").mkdir(parents=True)
    for path in images.iterdir():
        road = np.zeros((height, width), np.uint8)
        road[:, width // 2 :] = 1
        Image.fromarray(road).save(tmp_path / "labels" / "lanes" / path.name)
    data = ["--calibration-data", str(images), "--labels", str(tmp_path / "labels"), "--threads", "1", "-q"]
    assert (
        calibrate([str(tmp_path / "x.mtl"), *data, "--calibration-method", "minmax", "-o", str(tmp_path / "y.mtl")])
        == 0
    )
    matrix = AccuracyMatrix.from_dict(open_bundle(tmp_path / "y.mtl").manifest.accuracy)
    assert 0 <= matrix.cell("lanes", "int8-cpu").metrics["iou"] < 1
    assert matrix.cell("area", "int8-cpu").agreement is not None
