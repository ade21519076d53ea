from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_deploy.runtime.decoding import decode
from mtl_deploy.runtime.tasks import Task

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
        "2 (60.0 %)",
        "0.5, -2",
    ]
    assert json.loads(json.dumps(gender.to_dict())) == {"value": 1, "label": "female", "probabilities": [0.029, 0.971]}
    assert json.loads(json.dumps(pair.to_dict())) == {"value": [0.5, -2.0], "unit": None}
