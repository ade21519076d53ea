"""Errors of expectations, on a line and on the circle, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from mtl_deploy.calibration.accuracy.matrix import compare
from mtl_deploy.calibration.accuracy.metrics import metrics, per_sample
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.labels import parse_labels
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.search.budgets import parse_budgets
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import decode

AGE = parse_task("age=distribution:years;values=0:101:1").with_size(101)
YAW = parse_task("yaw=distribution:degrees;values=-180:180:10;period=360;circular=true").with_size(36)


def answered(task: Task, seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, what a decoded graph gives for them, and the numbers that the runtime reads."""
    logits = (4 * np.random.default_rng(seed).standard_normal((count, task.size))).astype(np.float32)
    predictions = decode(task, logits, "logits")
    numbers = np.array([each.value for each in predictions])
    turns = 2 * np.pi * numbers / (task.options.period or 1)
    first = np.stack([np.cos(turns), np.sin(turns)], axis=1) if task.options.circular else numbers[:, None]
    shares = np.array([each.probabilities for each in predictions])
    return logits, np.concatenate([first, shares], axis=1).astype(np.float32), numbers


@pytest.mark.parametrize("seed", range(4))
def test_an_error_on_a_line_is_scikit_learns(seed: int) -> None:
    logits, decoded, numbers = answered(AGE, seed)
    labels = np.random.default_rng(seed).uniform(0, 100, 60)
    wanted = mean_absolute_error(labels, numbers)
    assert metrics(AGE, logits, labels, decoded=False) == {"mae": pytest.approx(wanted)}
    assert metrics(AGE, decoded, labels, decoded=True) == {"mae": pytest.approx(wanted, rel=1e-5)}


@pytest.mark.parametrize("seed", range(4))
def test_an_error_of_angles_is_the_shorter_way_round(seed: int) -> None:
    logits, decoded, numbers = answered(YAW, seed)
    labels = np.random.default_rng(seed).uniform(-180, 180, 60)
    wanted = np.degrees(np.abs(np.angle(np.exp(1j * np.radians(numbers - labels)))))
    for outputs, form in ((logits, False), (decoded, True)):
        np.testing.assert_allclose(per_sample(YAW, outputs, labels, form), wanted, atol=1e-3)
    assert metrics(YAW, decoded, labels + 360, decoded=True)["mae"] == pytest.approx(wanted.mean(), abs=1e-3)


def test_labels_are_numbers_and_unknown_ones_do_not_count() -> None:
    labels, problems = parse_labels(AGE, ["31", "", "x", "40.5"])
    np.testing.assert_array_equal(labels, [31, np.nan, np.nan, 40.5])
    assert problems == {2: "age 'x' is not a number"}
    logits, _, numbers = answered(AGE, 0, 4)
    logits[3] = np.nan
    rows = per_sample(AGE, logits, labels, decoded=False)
    np.testing.assert_allclose(rows, [abs(numbers[0] - 31), np.nan, np.nan, np.inf], rtol=1e-6)
    assert kind_of(AGE).from_array(AGE, np.array([[3], [4]]), "x").tolist() == [3.0, 4.0]


def test_two_precisions_differ_by_the_number_and_not_by_the_bins() -> None:
    logits, decoded, _ = answered(YAW, 1, 80)
    turned = decoded.copy()
    turn = np.radians(7.0)
    turned[:, 0] = np.cos(turn) * decoded[:, 0] - np.sin(turn) * decoded[:, 1]
    turned[:, 1] = np.sin(turn) * decoded[:, 0] + np.cos(turn) * decoded[:, 1]
    data = CalibrationData(np.zeros((80, 2, 2, 3), np.uint8), {}, "x")
    cell = compare({"fp32": {"yaw": decoded}, "int8": {"yaw": turned}}, data, [YAW], decoded=True).cell("yaw", "int8")
    assert (cell.mean_error, cell.max_error) == (pytest.approx(7, abs=1e-3), pytest.approx(7, abs=1e-3))
    assert (cell.unit, cell.agreement) == ("degrees", None)
    rows = kind_of(YAW).spread_rows(YAW, decoded, turned)
    assert kind_of(YAW).relative(YAW, rows) == pytest.approx(
        7 / 90, rel=0.3
    )  # angles all around are 90 degrees off on average
    assert kind_of(YAW).spread_rows(YAW, logits, logits)[:, 0].max() == 0


def test_the_usual_answer_on_a_circle_lies_on_it() -> None:
    labels = np.array([170.0, 179.0, -179.0, -170.0, 175.0, -175.0, 180.0])
    usual = kind_of(YAW).usual(YAW, np.zeros((7, 38), np.float32), labels, decoded=True)
    assert usual is not None
    assert usual.answer in ("always answering 179 degrees, the median", "always answering 180 degrees, the median")
    assert usual.room < 6, "the mean error of 0 degrees would be 174"
    on_line = kind_of(AGE).usual(AGE, np.zeros((3, 102), np.float32), np.array([1.0, 2.0, 9.0]), decoded=True)
    assert on_line is not None
    assert on_line.answer == "always answering 2 years, the median"


def test_budgets_are_in_the_unit_or_a_share_of_the_error() -> None:
    assert parse_budgets("age=0.5,yaw=10%", [AGE, YAW], {"yaw": 4.0}) == {"age": 0.5, "yaw": pytest.approx(0.4)}
