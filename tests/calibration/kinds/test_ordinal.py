"""Labels of ranks by value, name and number, and their mean absolute error, which is scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import mean_absolute_error

from mtl_deploy.calibration.accuracy.matrix import compare
from mtl_deploy.calibration.accuracy.metrics import metrics, per_sample
from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.data.labels import parse_labels
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.search.budgets import parse_budgets
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import decode

AGE = parse_task("age=ordinal;values=20:31:1;unit=years").with_size(10)
CORN = parse_task("age=ordinal;values=20:31:1;unit=years;decoding=corn").with_size(10)
SIZE = parse_task("size=ordinal:small,medium,large").with_size(2)
BOTH = parse_task("age=ordinal:young,middle,old;values=15,40,70;unit=years").with_size(2)


@pytest.mark.parametrize(
    ("task", "cells", "wanted"),
    [
        (AGE, ["25", "25.5", "", "40"], [25, 25.5, np.nan, 40]),
        (SIZE, ["small", "Large", "", "medium"], [0, 2, np.nan, 1]),
        (SIZE, ["0", "2", "-1", "1.0"], [0, 2, np.nan, 1]),
        (BOTH, ["young", "33", "", "Old"], [15, 33, np.nan, 70]),
    ],
)
def test_a_label_is_a_value_a_name_or_a_rank(task: Task, cells: list[str], wanted: list[float]) -> None:
    labels, problems = parse_labels(task, cells)
    np.testing.assert_array_equal(labels, wanted)
    assert not problems


def test_cells_that_are_none_of_them_are_named() -> None:
    assert parse_labels(AGE, ["old", "3"])[1] == {0: "age 'old' is not a number"}
    assert parse_labels(SIZE, ["small", "huge"])[1] == {
        1: "size 'huge' is not one of small, medium, large or an index from 0 to 2"
    }
    array = np.array(["small", "large"])
    assert kind_of(SIZE).from_array(SIZE, array, "x").tolist() == [0, 2]
    assert kind_of(SIZE).from_array(SIZE, np.array([2, 0]), "x").tolist() == [2, 0]


@pytest.mark.parametrize("task", [AGE, CORN], ids=["coral", "corn"])
@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_scikit_learns_from_either_form(task: Task, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (2 * random.standard_normal((60, 10)) + 1).astype(np.float32)
    labels = random.uniform(20, 30, 60)
    predictions = decode(task, logits, "logits")
    wanted = mean_absolute_error(labels, [each.value for each in predictions])
    shares = np.array([each.probabilities for each in predictions])
    assert metrics(task, logits, labels, decoded=False) == {"mae": pytest.approx(wanted)}
    assert metrics(task, shares, labels, decoded=True) == {"mae": pytest.approx(wanted)}


def test_an_unknown_label_does_not_count_and_a_nan_is_never_right() -> None:
    shares = np.array([[0.9, 0.9], [0.9, 0.9], [np.nan, 0.9]], np.float32)
    found = per_sample(SIZE, shares, np.array([1.0, np.nan, 2.0]), decoded=True)
    np.testing.assert_array_equal(found, [1, np.nan, np.inf])


def test_errors_are_in_the_unit_of_the_values_or_in_ranks() -> None:
    shares = np.full((40, 2), 0.9, np.float32)
    other = shares.copy()
    other[:10, 1] = 0.1
    data = CalibrationData(np.zeros((40, 2, 2, 3), np.uint8), {"size": np.full(40, 2.0)}, "x")
    matrix = compare({"fp32": {"size": shares}, "int8": {"size": other}}, data, [SIZE], decoded=True)
    cell = matrix.cell("size", "int8")
    assert (cell.unit, cell.drop, cell.mean_error, cell.max_error) == ("ranks", 0.25, 0.25, 1.0)
    assert "mean absolute error, ranks" in matrix.text()
    data = CalibrationData(data.images, {"age": np.full(40, 70.0)}, "x")
    cell = compare({"fp32": {"age": shares}, "int8": {"age": other}}, data, [BOTH], decoded=True).cell("age", "int8")
    assert (cell.unit, cell.drop) == ("years", 7.5)
    assert parse_budgets("age=0.5", [BOTH]) == {"age": 0.5}
    assert parse_budgets("size=10%", [SIZE], {"size": 0.4}) == {"size": pytest.approx(0.04)}


def test_utkfaces_names_are_ages_of_ranks_with_values_alone(tmp_path: Path) -> None:
    for number, pixels in enumerate(synthetic_images(3, 16, 16, seed=0)):
        Image.fromarray(pixels).save(tmp_path / f"2{number}_0_2_2017011617452512{number}.png")
    assert load_data(tmp_path, Preprocessing(16, 16), [AGE]).labels["age"].tolist() == [20, 21, 22]
    named = parse_task("age=ordinal:young,middle,old").with_size(2)
    data = load_data(tmp_path, Preprocessing(16, 16), [named])
    assert "age" not in data.labels
    assert any("UTKFace's names do not give the labels" in text for text in data.warnings)
