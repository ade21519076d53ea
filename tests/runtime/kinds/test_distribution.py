"""A number from bins: on a line and on a circle, from decoded graphs and from logits; and what a task file may not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import circmean

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.kinds.distribution.values import apart
from mtl_deploy.runtime.kinds.spaced import listed
from mtl_deploy.runtime.predictions.decoding import decode

AGE = parse_task("age=distribution:years;values=0:101:1").with_size(101)
YAW = parse_task("yaw=distribution:degrees;values=-99:99:3;period=360").with_size(66)
COMPASS = parse_task("north=distribution:degrees;values=0:360:10;period=360;circular=true").with_size(36)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0:101:1", np.arange(101)),
        ("0:5", np.arange(5)),
        ("-99:99:3", 3 * np.arange(66) - 99),
        ("1:0:-0.1", 1 - 0.1 * np.arange(10)),
        ("0:1:0.1", np.arange(10) / 10),
        ((1.0, 5.0, 2.0), [1, 5, 2]),
    ],
)
def test_values_are_a_list_or_a_start_a_stop_and_a_step(given: Any, wanted: Any) -> None:
    np.testing.assert_allclose(listed(given), wanted, atol=1e-12)


@pytest.mark.parametrize("task", [AGE, YAW], ids=lambda task: str(task.name))
def test_the_number_is_the_expectation_of_a_softmax(task: Task) -> None:
    logits = np.random.default_rng(0).standard_normal((5, task.size)).astype(np.float32) * 5
    shares = softmax(logits.astype(np.float64), axis=1)
    for prediction, row in zip(decode(task, logits, "logits"), shares, strict=True):
        assert prediction.value == pytest.approx(float(row @ np.array(listed(task.options.values))), abs=1e-4)
        np.testing.assert_allclose(prediction.probabilities, row, atol=1e-6)


def test_around_a_circle_it_is_the_direction_of_the_mean() -> None:
    logits = np.random.default_rng(1).standard_normal((6, 36)).astype(np.float32)
    logits[0, [0, 35]] = 20  # 0 and 350 degrees: between them, not at 175
    logits[1, 0] = 30
    found = [float(prediction.value) for prediction in decode(COMPASS, logits, "logits")]
    angles = np.arange(0, 360, 10)
    weights = softmax(logits.astype(np.float64), axis=1)
    for value, row in zip(found, weights, strict=True):
        vector = (row * np.exp(1j * np.radians(angles))).sum()
        assert float(apart(COMPASS, np.array(value), np.degrees(np.angle(vector)))) < 1e-3
        assert 0 <= value < 360
    assert found[0] == pytest.approx(np.degrees(circmean(np.radians([0, 350]))), abs=1e-3)
    assert float(apart(COMPASS, np.array(found[1]), np.array(0.0))) < 1e-3


@pytest.mark.parametrize(
    ("activation", "given"),
    [
        ("none", lambda x: x),
        ("softmax", lambda x: softmax(x, axis=1)),
        ("log_softmax", lambda x: np.log(softmax(x, axis=1))),
    ],
)
def test_what_the_network_applied_is_not_applied_again(activation: str, given: Any) -> None:
    task = Task.from_dict({**AGE.to_dict(), "activation": activation})
    logits = np.random.default_rng(0).standard_normal((4, 101)).astype(np.float32)
    wanted = [each.value for each in decode(AGE, logits, "logits")]
    found = [each.value for each in decode(task, given(logits).astype(np.float32), "logits")]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_distances_are_the_shorter_way_round() -> None:
    one, other = np.array([170.0, -170.0, 10.0, 720.0, np.nan]), np.array([-170.0, 170.0, 350.0, 0.0, 3.0])
    np.testing.assert_allclose(apart(YAW, one, other), [20, 20, 20, 0, np.nan])
    np.testing.assert_allclose(apart(AGE, one, other)[:3], [340, 340, 340])


def test_a_prediction_has_the_number_and_the_probabilities() -> None:
    row = np.zeros((1, 102), np.float32)
    row[0, 0], row[0, 1 + 31] = 31.42, 1.0
    found = decode(AGE, row, "decoded")[0]
    assert str(found) == "31.42 years"
    assert found.probabilities is not None
    assert (found.value, found.probabilities.argmax()) == (pytest.approx(31.42), 31)
    record = found.to_dict()
    assert (record["value"], record["unit"]) == (pytest.approx(31.42), "years")
    assert np.array(record["probabilities"]).shape == (101,)
    assert (found.probability, found.label) == (None, None)
    assert found == decode(AGE, row, "decoded")[0]
    row[0, 0] = 31.5
    assert found != decode(AGE, row, "decoded")[0]


def test_numbers_that_are_not_finite_are_said() -> None:
    for value in (np.nan, np.inf):
        logits = np.zeros((1, 101), np.float32)
        logits[0, 3] = value
        found = decode(AGE, logits, "logits")[0]
        assert not found.finite
        assert (found.to_dict()["value"], found.to_dict()["finite"]) == (None, False)
        assert str(found).endswith("(NaN or infinite numbers)")


def test_a_task_goes_through_a_manifest_and_back() -> None:
    signature = Signature((AGE, YAW, COMPASS), Preprocessing(8, 8))
    assert Signature.from_json(signature.to_json(), "x") == signature
    assert [signature.sample_shape(name) for name in ("age", "yaw", "north")] == [(102,), (67,), (38,)]
    record = signature.to_dict()["tasks"][1]
    assert (record["values"], record["period"], record["circular"]) == ("-99:99:3", 360, False)
    with pytest.raises(BundleError, match="values"):
        Signature.from_json(signature.to_json().replace("-99:99:3", "-99:99:0"), "x")
    with pytest.raises(BundleError, match="give 2 to 65536"):
        Signature.from_json(signature.to_json().replace("-99:99:3", "0:1e12:1"), "x")
    text = parse_task("age=distribution:years;values=1,2.5,7")
    assert text.options.values == (1, 2.5, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=distribution", "a distribution needs values"),
        ("a=distribution;values=0:10:0", "write start:stop:step, such as 0:101:1"),
        ("a=distribution;values=0:10:-1", "values '0:10:-1' are fewer than 2; give 2 to"),
        ("a=distribution;values=0:1:1e-300", "are more than 65536; give 2 to 65536"),
        ("a=distribution;values=0:inf:1", "write start:stop:step"),
        ("a=distribution;values=0:1:2:3", "write start:stop:step"),
        ("a=distribution;values=0:x", "write start:stop:step"),
        ("a=distribution;values=1,x", "values cannot be '1,x'; write start:stop:step"),
        ("a=distribution;values=1", "values"),
        ("a=distribution;values=1,nan", "values"),
        ("a=distribution;values=0:360;circular=true", "circular needs the period"),
        ("a=distribution;values=0:361:1;period=180", "values from 0 to 360 are more than one period, 180"),
        ("a=distribution;values=0:2;period=2;circular=true", "do not go around a circle"),
        ("a=distribution;values=0:101;period=-3", "period"),
        (
            "a=distribution;values=0:101;activation=sigmoid",
            "no expectation over them; return logits, or declare it ordinal",
        ),
        ("a=distribution;values=0:101;labels=b,c", "a distribution has a unit, not labels"),
        ("a=distribution;values=0:101;scale=2", "has scale and offset"),
        ("a=regression;values=0:101", "values=0:101' is no field=value"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


def test_a_number_of_bins_that_is_not_the_networks_is_refused() -> None:
    with pytest.raises(
        TaskError, match=r"values '0:100:1' are 100 \(from 0 to 99, the stop is left out\), but .* 101 values"
    ):
        parse_task("age=distribution;values=0:100:1").with_size(101)
