from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_deploy.runtime.bundle.activation import BOTTOM, CEILING, FLOOR, log_odds, probabilities
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import decode

AGE = Task("age", "regression", unit="years", size=1, scale=2.0, offset=1.0)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", size=4)
LOGITS = st.floats(-200, 200, width=32)


@given(hnp.arrays(np.float32, (3, 4), elements=LOGITS))
def test_probabilities_are_a_softmax(logits: np.ndarray) -> None:
    for row, prediction in zip(logits, decode(RACE, logits, "logits"), strict=True):
        assert prediction.probabilities is not None
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.probability == prediction.probabilities.max()
        assert row[int(prediction.value)] >= row.max() - 1e-5  # type: ignore[arg-type]


@given(hnp.arrays(np.float32, (3, 1), elements=LOGITS), st.floats(0.05, 0.95))
def test_a_binary_task_is_positive_from_its_threshold_on(logits: np.ndarray, threshold: float) -> None:
    task = Task("gender", "binary", labels=("male", "female"), size=1, threshold=threshold)
    for row, prediction in zip(logits[:, 0], decode(task, logits, "logits"), strict=True):
        assert prediction.probabilities is not None
        positive = 1 / (1 + np.exp(-np.float64(row)))
        np.testing.assert_allclose(prediction.probabilities, [1 - positive, positive], atol=1e-5)
        if abs(positive - threshold) > 1e-5:
            assert prediction.label == ("female" if positive > threshold else "male")


@given(hnp.arrays(np.float32, (4, 2), elements=LOGITS))
def test_a_binary_task_of_two_logits_is_a_softmax(logits: np.ndarray) -> None:
    task = Task("gender", "binary", labels=("male", "female"), size=2)
    for row, prediction in zip(logits, decode(task, logits, "logits"), strict=True):
        if abs(row[0] - row[1]) > 1e-3:
            assert prediction.label == ("female" if row[1] > row[0] else "male")


def test_a_regression_is_scaled_once() -> None:
    raw = np.array([[3.0]], np.float32)
    assert decode(AGE, raw, "logits")[0].value == 7
    assert decode(AGE, raw, "decoded")[0].value == 3


def test_predictions_read_well() -> None:
    age = decode(AGE, np.array([[31.42]], np.float32), "decoded")[0]
    gender = decode(GENDER, np.array([[0.971]], np.float32), "decoded")[0]
    race = decode(RACE, np.array([[0.1, 0.2, 0.6, 0.1]], np.float32), "decoded")[0]
    pair = decode(Task("gaze", "regression", size=2), np.array([[0.5, -2]], np.float32), "decoded")[0]
    assert [str(each) for each in (age, gender, race, pair)] == [
        "31.42 years",
        "female (97.1 %)",
        "class 2 (60.0 %)",
        "0.5, -2",
    ]
    assert json.loads(json.dumps(gender.to_dict())) == {"value": 1, "label": "female", "probabilities": [0.029, 0.971]}
    assert json.loads(json.dumps(pair.to_dict())) == {"value": [0.5, -2.0], "unit": None}


def test_a_label_that_is_a_number_reads_as_a_class() -> None:
    ages = Task("age", "multiclass", labels=("0-2", "3-9", "over 10"), size=3)
    rows = np.eye(3, dtype=np.float32)
    assert [str(each) for each in decode(ages, rows, "decoded")] == [
        "class 0-2 (100.0 %)",
        "class 3-9 (100.0 %)",
        "over 10 (100.0 %)",
    ]


def test_many_numbers_are_said_in_short() -> None:
    few = np.arange(12, dtype=np.float32)[None]
    many = np.linspace(-1, 2, 100_000, dtype=np.float32)[None].copy()
    assert str(decode(Task("x", "regression", size=12), few, "decoded")[0]).count(",") == 11
    task = Task("x", "regression", size=100_000, unit="mm")
    prediction = decode(task, many, "decoded")[0]
    assert str(prediction) == "-1, -1, -0.9999, -0.9999, ... (100000 values, from -1 to 2 mm)"
    assert prediction.to_dict()["value"] == many[0].tolist()
    many[0, :3] = np.nan
    assert str(decode(task, many, "decoded")[0]).startswith("nan, nan, nan, -0.9999, ... (100000 values, from -0.9999")
    many[:] = np.nan
    assert "(100000 values, none of them finite)" in str(decode(task, many, "decoded")[0])


PLACES = hnp.arrays(np.float32, (3, 4), elements=st.floats(-30, 30, width=32))


@given(PLACES)
def test_what_the_network_has_applied_is_not_applied_again(logits: np.ndarray) -> None:
    wanted = probabilities("none", logits)
    ours = [prediction.probabilities for prediction in decode(RACE, logits, "logits")]
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    given = {"softmax": wanted, "log_softmax": np.log(np.maximum(wanted, 1e-30)), "sigmoid": 1 / (1 + np.exp(-logits))}
    for activation, raw in given.items():
        task = Task("race", "multiclass", size=4, activation=activation)  # type: ignore[arg-type]
        found = [prediction.probabilities for prediction in decode(task, raw, "logits")]
        np.testing.assert_allclose(found, raw if activation == "sigmoid" else wanted, rtol=1e-5, atol=1e-6)
        decoded = decode(task, np.stack(found), "decoded")  # type: ignore[arg-type]
        np.testing.assert_array_equal([prediction.probabilities for prediction in decoded], found)


@pytest.mark.parametrize(("activation", "value"), [("none", 0.4), ("sigmoid", 0.4), ("sigmoid", 0.6)])
def test_a_binary_networks_own_sigmoid_is_its_probability(activation: Any, value: float) -> None:
    task = Task("gender", "binary", labels=("male", "female"), size=1, activation=activation)
    (prediction,) = decode(task, np.array([[value]], np.float32), "logits")
    positive = value if activation == "sigmoid" else 1 / (1 + np.exp(-value))
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, [1 - positive, positive], rtol=1e-6)
    assert prediction.label == ("female" if positive >= 0.5 else "male")


@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(-40, 40)))
def test_logits_come_back_from_probabilities_as_far_as_float32_holds_them(logits: np.ndarray) -> None:
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    np.testing.assert_allclose(
        log_odds("softmax", np.exp(logs).astype(np.float32)), np.maximum(logs, FLOOR), rtol=1e-6, atol=2e-7
    )
    single = (1 / (1 + np.exp(-logits))).astype(np.float32)
    np.testing.assert_allclose(log_odds("sigmoid", single), np.clip(logits, BOTTOM, CEILING), rtol=1e-6, atol=1e-5)


def test_the_logits_of_probabilities_never_hide_what_is_wrong() -> None:
    assert np.isnan(log_odds("softmax", np.array([[np.nan, 0.5]], np.float32))[0, 0])
    assert log_odds("softmax", np.array([[0.0, -0.5]], np.float32)).tolist() == [[FLOOR, FLOOR]]
    assert log_odds("sigmoid", np.array([[0.0, 1.0, 1.5]], np.float32)).tolist() == [[BOTTOM, CEILING, CEILING]]
