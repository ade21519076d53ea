"""The matrix of tasks and precisions: what each loses, how sure that is, and what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix, compare
from mtl_deploy.calibration.accuracy.metrics import metrics
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import BundleError, TaskError

AGE = Task("age", "regression", unit="years", size=1)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", size=5)
TASKS = (AGE, GENDER, RACE)
IMAGES = 300

ByTask = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data() -> CalibrationData:
    random = np.random.default_rng(0)
    labels = {
        "age": random.uniform(0, 90, IMAGES),
        "gender": random.integers(0, 2, IMAGES),
        "race": random.integers(0, 5, IMAGES),
    }
    return CalibrationData(synthetic_images(IMAGES, 8, 8, seed=0), labels, "test")


def answers(data: CalibrationData, noise: float) -> ByTask:
    """A network's decoded outputs: the truth with errors that every precision has, and noise of its own."""
    common, own = np.random.default_rng(1), np.random.default_rng(2)
    age = data.labels["age"] + common.normal(0, 6, IMAGES) + 9 * noise * own.normal(0, 1, IMAGES)
    gender = 4 * data.labels["gender"] - 2 + common.normal(0, 1.5, IMAGES) + 3 * noise * own.normal(0, 1, IMAGES)
    race = (
        3 * np.eye(5)[data.labels["race"]]
        + common.normal(0, 1, (IMAGES, 5))
        + 3 * noise * own.normal(0, 1, (IMAGES, 5))
    )
    race = np.exp(race) / np.exp(race).sum(axis=1, keepdims=True)
    outputs = {"age": age[:, None], "gender": 1 / (1 + np.exp(-gender))[:, None], "race": race}
    return {name: values.astype(np.float32) for name, values in outputs.items()}


@pytest.fixture(scope="module")
def matrix(data: CalibrationData) -> AccuracyMatrix:
    outputs = {
        "pytorch": answers(data, 0),
        "fp32": answers(data, 0),
        "fp16": answers(data, 0.001),
        "int8": answers(data, 1),
    }
    return compare(outputs, data, TASKS, decoded=True)


def test_every_task_has_a_cell_a_precision_with_its_metrics(data: CalibrationData, matrix: AccuracyMatrix) -> None:
    assert matrix.labelled
    assert [(cell.task, cell.variant) for cell in matrix.cells] == [
        (task.name, variant) for task in TASKS for variant in ("pytorch", "fp32", "fp16", "int8")
    ]
    for task in TASKS:
        for variant, noise in (("pytorch", 0), ("int8", 1)):
            expected = metrics(task, answers(data, noise)[task.name], data.labels[task.name], decoded=True)
            assert matrix.cell(task.name, variant).metrics == expected
            assert matrix.cell(task.name, variant).samples == IMAGES


def test_a_drop_is_positive_where_the_metric_is_worse_whichever_way_it_counts(matrix: AccuracyMatrix) -> None:
    for task, metric, sign in (("age", "mae", 1), ("gender", "accuracy", -1), ("race", "accuracy", -1)):
        first, last = matrix.cell(task, "pytorch"), matrix.cell(task, "int8")
        assert last.drop == pytest.approx(sign * (last.metrics[metric] - first.metrics[metric]))
        assert last.drop > 0
        assert 0 < last.drop_low < last.drop < last.drop_high


def test_the_reference_loses_nothing_and_agrees_with_itself(matrix: AccuracyMatrix) -> None:
    for task in ("age", "gender", "race"):
        cell = matrix.cell(task, "pytorch")
        assert (cell.drop, cell.drop_low, cell.drop_high) == (0, 0, 0)
        assert (cell.agreement, cell.mean_error, cell.max_error) == (None if task == "age" else 1, 0, 0)


def test_small_noise_is_no_significant_drop(matrix: AccuracyMatrix) -> None:
    for task in ("age", "gender", "race"):
        cell = matrix.cell(task, "fp16")
        assert cell.drop_low <= 0 <= cell.drop_high
        assert 0 < cell.mean_error < cell.max_error < 0.05


def test_a_network_that_got_better_has_a_negative_drop(data: CalibrationData) -> None:
    matrix = compare({"pytorch": answers(data, 1), "better": answers(data, 0)}, data, TASKS, decoded=True)
    assert all(matrix.cell(task.name, "better").drop_high < 0 for task in TASKS)


def test_without_labels_agreement_and_error_are_what_is_left(data: CalibrationData) -> None:
    outputs = {"fp32": answers(data, 0), "int8": answers(data, 1)}
    matrix = compare(outputs, replace(data, labels={}, digest=""), TASKS, decoded=True)
    assert not matrix.labelled
    for task in TASKS:
        cell = matrix.cell(task.name, "int8")
        assert (cell.metrics, cell.drop, cell.drop_low, cell.drop_high) == ({}, None, None, None)
        difference = np.abs(outputs["int8"][task.name].astype(np.float64) - outputs["fp32"][task.name])
        assert (cell.mean_error, cell.max_error) == pytest.approx((difference.mean(), difference.max()))
    same = outputs["int8"]["race"].argmax(axis=1) == outputs["fp32"]["race"].argmax(axis=1)
    assert matrix.cell("race", "int8").agreement == pytest.approx(same.mean())
    assert "accuracy" not in matrix.text()
    assert "lost" not in matrix.text()


def test_a_task_without_labels_stands_beside_those_with_labels(data: CalibrationData) -> None:
    known = np.where(np.arange(IMAGES) < 100, data.labels["gender"], -1)
    partly = replace(data, labels={"gender": known}, digest="")
    matrix = compare({"fp32": answers(data, 0), "int8": answers(data, 1)}, partly, TASKS, decoded=True)
    assert matrix.labelled
    assert (matrix.cell("gender", "int8").samples, matrix.cell("age", "int8").samples) == (100, IMAGES)
    assert matrix.cell("gender", "int8").drop is not None
    assert matrix.cell("age", "int8").drop is None
    assert matrix.text().startswith("100 to 300 images\n")


def test_a_regressions_differences_are_in_its_unit_where_the_graph_gives_raw_values(data: CalibrationData) -> None:
    task = Task("age", "regression", unit="years", size=1, scale=100.0)
    raw = {"fp32": {"age": np.full((IMAGES, 1), 0.3)}, "int8": {"age": np.full((IMAGES, 1), 0.32)}}
    assert compare(raw, data, [task], decoded=False).cell("age", "int8").mean_error == pytest.approx(2)


def test_outputs_that_are_no_numbers_drop_without_limit(data: CalibrationData) -> None:
    broken = {name: np.full_like(values, np.nan) for name, values in answers(data, 0).items()}
    matrix = compare({"fp32": answers(data, 0), "int8": broken}, data, TASKS, decoded=True)
    age, race = matrix.cell("age", "int8"), matrix.cell("race", "int8")
    assert age.drop == age.drop_low == age.metrics["mae"] == np.inf
    assert (race.agreement, race.metrics["accuracy"], race.max_error) == (0, 0, np.inf)
    assert race.drop == matrix.cell("race", "fp32").metrics["accuracy"]
    text = json.dumps(matrix.to_dict(), allow_nan=False)
    assert AccuracyMatrix.from_dict(json.loads(text)) == matrix
    assert "+inf (+inf to +inf)" in matrix.text()


def test_two_broken_networks_do_not_agree(data: CalibrationData) -> None:
    broken = {name: np.full_like(values, np.nan) for name, values in answers(data, 0).items()}
    matrix = compare({"fp32": broken, "int8": dict(broken)}, data, TASKS, decoded=True)
    assert matrix.cell("race", "int8").agreement == 0
    assert matrix.cell("age", "int8").mean_error == np.inf


def test_a_record_is_json_and_is_read_back(matrix: AccuracyMatrix) -> None:
    assert AccuracyMatrix.from_dict(json.loads(json.dumps(matrix.to_dict(), allow_nan=False))) == matrix


@pytest.mark.parametrize(
    "record",
    [{}, {"labelled": True}, {"labelled": True, "cells": [{}]}, {"labelled": True, "cells": [3]}, {"cells": None}],
    ids=str,
)
def test_a_malformed_record_is_an_error(record: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="malformed record of accuracy"):
        AccuracyMatrix.from_dict(record)


def test_the_text_has_a_column_a_precision_and_a_row_a_metric(matrix: AccuracyMatrix) -> None:
    first, second = matrix.text().split("\n\n")
    lines = first.splitlines()
    assert lines[0] == "300 images"
    assert lines[1].split() == ["task", "metric", "pytorch", "fp32", "fp16", "int8"]
    assert [line.split()[0] for line in lines[3:]] == ["age"] * 3 + ["gender"] * 4 + ["race"] * 4
    assert any("mean absolute error, years" in line for line in lines)
    accuracy = 100 * matrix.cell("race", "int8").metrics["accuracy"]
    assert any(line.startswith("race") and " accuracy, %" in line and f"{accuracy:.2f}" in line for line in lines)
    assert "loss against pytorch" in second
    race = matrix.cell("race", "int8")
    assert f"{100 * race.drop:+.2f} ({100 * race.drop_low:+.2f} to {100 * race.drop_high:+.2f})" in second


def test_an_unknown_cell_is_an_error(matrix: AccuracyMatrix) -> None:
    with pytest.raises(TaskError, match="the accuracy of task 'smile' at 'int8' was not measured"):
        matrix.cell("smile", "int8")


def test_outputs_for_other_images_are_refused(data: CalibrationData) -> None:
    short = {name: values[:-1] for name, values in answers(data, 0).items()}
    with pytest.raises(ValueError, match="int8, task 'age': outputs of shape"):
        compare({"fp32": answers(data, 0), "int8": short}, data, TASKS, decoded=True)


def test_a_task_that_a_precision_lacks_has_no_cell_there(data: CalibrationData) -> None:
    partly = {"age": answers(data, 1)["age"]}
    matrix = compare({"fp32": answers(data, 0), "int8": partly}, data, TASKS, decoded=True)
    assert [cell.task for cell in matrix.cells if cell.variant == "int8"] == ["age"]
    assert "n/a" in matrix.text()


def test_real_graphs_are_compared(multi_head: Callable[..., onnx.ModelProto], run: Callable[..., ByTask]) -> None:
    model = multi_head()
    images = synthetic_images(64, 16, 16, seed=2)
    half = to_half(model, observe(model, [images])).model
    outputs = {"fp32": run(model, images), "fp16": run(emulate_half(half), images)}
    labels = {"race": outputs["fp32"]["race"].argmax(axis=1)}
    matrix = compare(outputs, CalibrationData(images, labels, "test"), TASKS, decoded=True)
    assert matrix.cell("race", "fp32").metrics["accuracy"] == 1
    assert matrix.cell("race", "fp16").drop == pytest.approx(1 - matrix.cell("race", "fp16").agreement)
    assert 0 < matrix.cell("age", "fp16").max_error < 0.5
