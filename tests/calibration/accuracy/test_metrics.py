"""Each task's metrics are scikit-learn's, follow the runtime's decisions, and never hide a NaN."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from mtl_deploy.calibration.accuracy.metrics import lower_is_better, main_metric, metrics, per_sample
from mtl_deploy.calibration.kinds.registry import KINDS, named
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import decode

AGE = Task("age", "regression", unit="years", size=1, scale=100.0, offset=1.0)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", size=5)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_regressions_error_is_in_its_unit_from_either_form() -> None:
    raw = np.array([[0.1], [0.5], [0.9]], np.float32)
    labels = np.array([10.0, 52, np.nan])
    assert metrics(AGE, raw, labels, decoded=False)["mae"] == pytest.approx(1.0, abs=1e-5)
    assert metrics(AGE, raw * 100 + 1, labels, decoded=True)["mae"] == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(per_sample(AGE, raw, labels, decoded=False), [1, 1, np.nan], atol=1e-5)


def test_a_regression_of_several_values_has_the_mean_of_their_errors() -> None:
    task = Task("pose", "regression", size=2)
    labels = np.array([[1.0, 2], [np.nan, np.nan]])
    outputs = np.array([[2.0, 5], [0, 0]], np.float32)
    np.testing.assert_array_equal(per_sample(task, outputs, labels, decoded=True), [2, np.nan])
    assert metrics(task, outputs, labels, decoded=True) == {"mae": 2}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 5])
def test_classes_are_measured_as_scikit_learn_does(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(classes, 60, p=np.linspace(1, 9, classes) / np.linspace(1, 9, classes).sum())
    logits = random.standard_normal((60, classes)).astype(np.float32) + np.eye(classes, dtype=np.float32)[labels]
    if classes == 5:
        labels = np.where(labels == 0, 1, labels)  # a class that is answered, but has no image
        task, outputs = RACE, softmax(logits)
    else:
        task, outputs = GENDER, softmax(logits)[:, 1:]
    answers = logits.argmax(axis=1)
    found = metrics(task, outputs, labels, decoded=True)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, answers))
    recall = reference.recall_score(labels, answers, labels=np.unique(labels), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(recall)
    average = "binary" if classes == 2 else "macro"
    assert found["f1"] == pytest.approx(reference.f1_score(labels, answers, average=average, zero_division=0))
    assert found["accuracy"] == pytest.approx(per_sample(task, outputs, labels, decoded=True).mean())


@pytest.mark.parametrize(
    "task",
    [GENDER, Task("gender", "binary", size=2, threshold=0.8), Task("gender", "binary", size=1, threshold=0.2), RACE],
    ids=["binary", "two logits", "threshold", "multiclass"],
)
@pytest.mark.parametrize("form", ["decoded", "logits"])
def test_an_answer_is_the_one_that_the_runtime_gives(task: Task, form: str) -> None:
    outputs = np.random.default_rng(0).standard_normal((40, task.size)).astype(np.float32)
    if form == "decoded":
        outputs = 1 / (1 + np.exp(-outputs)) if task.size == 1 else softmax(outputs)
    answers = np.array([prediction.value for prediction in decode(task, outputs, form)])  # type: ignore[arg-type]
    assert metrics(task, outputs, answers, form == "decoded") == {"accuracy": 1, "balanced_accuracy": 1, "f1": 1}


def test_unknown_labels_do_not_count() -> None:
    outputs = np.array([[0.9], [0.9], [0.1]], np.float32)
    assert metrics(GENDER, outputs, np.array([1, -1, 1]), decoded=True)["accuracy"] == 0.5
    np.testing.assert_array_equal(per_sample(GENDER, outputs, np.array([1, -1, 1]), decoded=True), [1, np.nan, 0])
    assert metrics(GENDER, outputs, np.full(3, -1), decoded=True) == {}
    assert metrics(AGE, outputs, np.full(3, np.nan), decoded=True) == {}


def test_what_is_no_number_is_wrong_and_infinitely_far() -> None:
    nan = np.full((2, 1), np.nan, np.float32)
    assert metrics(AGE, nan, np.array([3.0, 4]), decoded=True)["mae"] == np.inf
    assert metrics(GENDER, nan, np.array([0, 0]), decoded=True)["accuracy"] == 0
    broken = np.array([[0.1, np.nan, 0.2, 0.3, 0.4]], np.float32)  # argmax would say 1
    assert metrics(RACE, broken, np.array([1]), decoded=False) == {"accuracy": 0, "balanced_accuracy": 0, "f1": 0}


def test_f1_without_a_positive_anywhere_is_zero() -> None:
    assert metrics(GENDER, np.zeros((3, 1), np.float32), np.zeros(3, np.int64), decoded=True) == {
        "accuracy": 1,
        "balanced_accuracy": 1,
        "f1": 0,
    }


def test_the_main_metric_is_the_error_or_the_accuracy() -> None:
    assert [main_metric(task) for task in (AGE, GENDER, RACE)] == ["mae", "accuracy", "accuracy"]
    dense = [Task("a", "segmentation", size=2), Task("b", "depth", size=1), Task("c", "normals", size=3)]
    assert [main_metric(task) for task in dense] == ["mean_iou", "rmse", "mean_angle"]
    keys = {key for name in KINDS for key in named(name).metrics}
    errors = {"mae", "rmse", "abs_rel", "mean_angle", "nme", "spread_error", "point_distance", "geodesic"}
    errors |= {f"mae_{angle}" for angle in ("yaw", "pitch", "roll")}
    assert errors == {key for key in keys if lower_is_better(key)}


@pytest.mark.parametrize("decoded", [True, False])
def test_what_the_network_has_applied_counts_as_probabilities(decoded: bool) -> None:
    labels = np.array([0.0, 1, 0, 1])
    gender = Task("gender", "binary", labels=("male", "female"), size=1, threshold=0.3, activation="sigmoid")
    outputs = np.array([[0.2], [0.4], [0.1], [0.9]], np.float32)  # as logits, all would be female
    assert metrics(gender, outputs, labels, decoded)["accuracy"] == 1
    hat = Task("hat", "binary", size=2, threshold=0.3, activation="log_softmax")
    both = np.concatenate([1 - outputs, outputs], axis=1)
    assert metrics(hat, both if decoded else np.log(both), labels, decoded)["accuracy"] == 1
