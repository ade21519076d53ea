"""Labels of a multilabel task from tables and arrays, and its metrics, which are scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as reference

from mtl_deploy.calibration.accuracy.matrix import compare
from mtl_deploy.calibration.accuracy.metrics import metrics, per_sample
from mtl_deploy.calibration.data.checks import data_warnings
from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.search.budgets import parse_budgets
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.predictions.decoding import decode

FACE = parse_task("face=multilabel:Smiling,Young,Bald;thresholds=0.5,0.8,0.3").with_size(3)
SIZE = Preprocessing(16, 16)


def read(folder: Path, text: str, *tasks: Task) -> CalibrationData:
    for number, pixels in enumerate(synthetic_images(3, 16, 16, seed=0)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text(text)
    return load_data(folder, SIZE, tasks or (FACE,), labels=folder / "labels.csv")


@pytest.mark.parametrize(
    "text",
    [
        "file,Young,smiling,Bald\n0.png,0,1,0\n1.png,1,,1\n2.png,,,\n",
        "file,face.Smiling,face.Young,face.Bald,Smiling,Young,Bald\n0.png,1,0,0,0,0,0\n1.png,,1,1,0,0,0\n2.png,,nan,,0,0,0\n",
        "file,face\n0.png,1 0 0\n1.png,nan 1 1\n2.png,\n",
        "file,Smiling,Young,Bald\n0.png,yes,no,False\n1.png,-1,1.0,true\n2.png,,,\n",
        "file;Smiling;Young;Bald\n0.png;1;0;0\n1.png;;1,0;1\n2.png;;;\n",
    ],
    ids=["a column per label", "the task before the label", "one column", "words", "semicolons"],
)
def test_a_table_has_a_column_per_label(tmp_path: Path, text: str) -> None:
    data = read(tmp_path, text)
    assert data.labels["face"].tolist() == [[1, 0, 0], [-1, 1, 1], [-1, -1, -1]]
    assert any("face: labels for 2 of 3 images" in text for text in data.warnings)


def test_minus_one_is_no_where_no_label_is_zero_as_celeba_writes_it(tmp_path: Path) -> None:
    data = read(tmp_path, "file,Smiling,Young,Bald\n0.png,1,-1,-1\n1.png,-1,1,-1\n2.png,,,\n")
    assert data.labels["face"].tolist() == [[1, 0, 0], [0, 1, 0], [-1, -1, -1]]
    found = kind_of(FACE).from_array(FACE, np.array([[1, -1, -1], [-1, 1, -1]]), "x")
    assert found.tolist() == [[1, 0, 0], [0, 1, 0]]
    found = kind_of(FACE).from_array(FACE, np.array([[1, 0, -1], [np.nan, 1, 0]]), "x")
    assert found.tolist() == [[1, 0, -1], [-1, 1, 0]]


def test_a_cell_that_is_neither_is_named_and_a_missing_column_is_an_error(tmp_path: Path) -> None:
    data = read(tmp_path, "file,Smiling,Young,Bald\n0.png,1,0,0\n1.png,1,7,0\n2.png,0,1,1\n")
    assert any("line 3: face Young '7' is neither 0 nor 1" in text for text in data.warnings)
    assert data.labels["face"][1].tolist() == [-1, -1, -1]
    with pytest.raises(OptionError, match="columns of task 'face' are missing: Bald"):
        read(tmp_path, "file,Smiling,Young\n0.png,1,0\n")
    with pytest.raises(OptionError, match="no column is named after a task"):
        read(tmp_path, "file,other\n0.png,1\n")


def test_a_column_of_another_task_is_not_taken_for_a_label(tmp_path: Path) -> None:
    smiling = Task("smiling", "binary", labels=("no", "yes"), size=1)
    data = read(tmp_path, "file,smiling\n0.png,yes\n1.png,no\n2.png,yes\n", FACE, smiling)
    assert set(data.labels) == {"smiling"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2)), r"expected \(N, 3\)"),
        (np.full((4, 3), 2), "other than 0, 1 and -1"),
        (np.zeros(4), "expected"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        kind_of(FACE).from_array(FACE, array, "x.npz: labels/face")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decoded", [True, False])
def test_metrics_are_those_of_scikit_learn(seed: int, decoded: bool) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random((80, 3)) < (0.5, 0.2, 0.9)).astype(np.int64)
    logits = np.round(random.standard_normal((80, 3)) + 2 * labels - 1, 1).astype(np.float32)  # some are equal
    shares = 1 / (1 + np.exp(-logits))
    answers = shares >= np.array((0.5, 0.8, 0.3), np.float32)
    found = metrics(FACE, shares if decoded else logits, labels, decoded)
    wanted = np.mean([reference.accuracy_score(labels[:, i], answers[:, i]) for i in range(3)])
    assert found["mean_accuracy"] == pytest.approx(wanted)
    assert found["mean_ap"] == pytest.approx(reference.average_precision_score(labels, logits, average="macro"))
    runtime = np.array([each.value for each in decode(FACE, logits, "logits")])
    np.testing.assert_array_equal(runtime, answers)
    rows = per_sample(FACE, logits, labels, decoded=False)
    np.testing.assert_allclose(rows, (runtime == labels).mean(axis=1))


def test_labels_that_are_not_known_do_not_count_and_a_nan_is_never_right() -> None:
    shares = np.array([[0.9, 0.9, 0.9], [np.nan, 0.9, 0.1], [0.1, 0.1, 0.1]], np.float32)
    labels = np.array([[1, -1, 0], [1, 1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(per_sample(FACE, shares, labels, decoded=True), [0.5, 0.5, np.nan])
    found = metrics(FACE, shares, labels, decoded=True)
    assert found["mean_accuracy"] == 0.5
    assert found["mean_ap"] == 1.0, "a label that holds nowhere has no average precision"
    assert metrics(FACE, shares, np.full((3, 3), -1), decoded=True) == {}
    without = metrics(FACE, shares, np.zeros((3, 3), np.int64), decoded=True)
    assert set(without) == {"mean_accuracy"}


def test_a_drop_is_in_points_with_its_interval_and_agreement_counts_labels() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (200, 3))
    right = np.where(labels == 1, 0.95, 0.05).astype(np.float32)
    worse = right.copy()
    worse[:20, 0] = 1 - worse[:20, 0]  # 20 of 600 answers change
    images = np.zeros((200, 2, 2, 3), np.uint8)
    data = CalibrationData(images, {"face": labels}, "x")
    matrix = compare({"fp32": {"face": right}, "int8": {"face": worse}}, data, [FACE], decoded=True)
    cell = matrix.cell("face", "int8")
    assert cell.drop == pytest.approx(20 / 600)
    assert cell.drop_low is not None
    assert cell.drop_high is not None
    assert 0 < cell.drop_low < 20 / 600 < cell.drop_high < 0.06
    assert cell.agreement == pytest.approx(1 - 20 / 600)
    text = matrix.text()
    for row in ("mean accuracy, %", "mAP, %", "same answer as fp32, %", "+3.33 (", "points"):
        assert row in text
    unlabelled = CalibrationData(images, {}, "x")
    cell = compare({"fp32": {"face": right}, "int8": {"face": worse}}, unlabelled, [FACE], decoded=True).cell(
        "face", "int8"
    )
    assert cell.agreement == pytest.approx(1 - 20 / 600)


def test_a_budget_is_a_share_of_the_answers() -> None:
    assert parse_budgets("face=0.5%", [FACE]) == {"face": 0.005}
    with pytest.raises(OptionError, match=r"write 0\.5% for percentage points"):
        parse_budgets("face=0.5", [FACE])


def test_always_giving_the_usual_labels_is_what_a_network_must_beat() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, -1]])
    usual = kind_of(FACE).usual(FACE, np.zeros((4, 3), np.float32), labels, decoded=True)
    assert usual is not None
    assert usual.answer == "always answering Smiling"
    np.testing.assert_allclose(usual.per_image, [1, 2 / 3, 2 / 3, 0.5])
    assert kind_of(FACE).usual(FACE, np.zeros((2, 3), np.float32), np.array([[1, 0, 0]] * 2), decoded=True) is None


def test_labels_that_never_or_always_hold_are_named() -> None:
    labels = np.array([[1, 0, -1], [1, 1, 0]])
    found = "\n".join(data_warnings(np.zeros((2, 8, 8, 3), np.uint8), {"face": labels}, [FACE], labelled=True))
    assert "face: no image with 1 of 3 labels (Bald)" in found
    assert "face: no image without 1 of 3 labels (Smiling)" in found
