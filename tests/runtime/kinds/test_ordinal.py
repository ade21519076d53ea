"""Ranks by thresholds, as CORAL and CORN count them, with values, labels or neither; and what a task file may not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.predictions.decoding import decode

AGE = parse_task("age=ordinal;values=20:31:1;unit=years").with_size(10)
CORN = parse_task("age=ordinal;values=20:31:1;unit=years;decoding=corn").with_size(10)
SIZE = parse_task("size=ordinal:small,medium,large").with_size(2)
BARE = Task("rank", "ordinal", size=4)


def sigmoid(values: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def test_coral_counts_the_thresholds_that_are_passed() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
    for prediction, row in zip(decode(AGE, logits, "logits"), logits, strict=True):
        assert prediction.value == 20 + np.count_nonzero(row > 0)
        np.testing.assert_allclose(prediction.probabilities, sigmoid(row), atol=1e-6)


def test_corn_multiplies_each_probability_with_those_before_it() -> None:
    logits = (2 * np.random.default_rng(1).standard_normal((50, 10)) + 2).astype(np.float32)
    ranks = set()
    for prediction, row in zip(decode(CORN, logits, "logits"), logits, strict=True):
        wanted = [np.prod(sigmoid(row)[: place + 1]) for place in range(10)]
        np.testing.assert_allclose(prediction.probabilities, wanted, atol=1e-6)
        assert prediction.value == 20 + sum(share > 0.5 for share in wanted)
        ranks.add(prediction.value)
    assert len(ranks) > 3


def test_all_ranks_are_reached_and_the_threshold_is_the_tasks() -> None:
    shares = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.8], [0.5, 0.5]], np.float32)
    assert [each.label for each in decode(SIZE, shares, "decoded")] == ["small", "medium", "large", "small"]
    strict = parse_task("size=ordinal:small,medium,large;threshold=0.85").with_size(2)
    assert [each.value for each in decode(strict, shares, "decoded")] == [0, 1, 1, 0]
    given = parse_task("size=ordinal:small,medium,large;activation=sigmoid").with_size(2)
    assert decode(given, shares, "logits") == decode(SIZE, shares, "decoded")
    logits = np.log(shares[:3] / (1 - shares[:3]))
    assert decode(SIZE, logits, "logits") == decode(SIZE, shares[:3], "decoded")


def test_predictions_read_well() -> None:
    age = decode(AGE, np.array([[5.0] * 7 + [-5] * 3], np.float32), "logits")[0]
    assert (str(age), age.value, age.label, age.unit) == ("27 years", 27.0, None, "years")
    size = decode(SIZE, np.array([[0.75, 0.25]], np.float32), "decoded")[0]
    assert str(size) == "medium"
    assert size.to_dict() == {"value": 1, "label": "medium", "unit": None, "probabilities": [0.75, 0.25]}
    bare = decode(BARE, np.array([[0.9, 0.8, 0.7, 0.6]], np.float32), "decoded")[0]
    assert (str(bare), bare.value, bare.probability) == ("rank 4", 4, None)
    numbered = parse_task("a=ordinal:0-9,10-19,20+;values=5,15,25;unit=years").with_size(2)
    found = decode(numbered, np.array([[0.9, 0.1]], np.float32), "decoded")[0]
    assert (found.value, found.label, str(found)) == (15.0, "10-19", "class 10-19")
    assert found == decode(numbered, np.array([[0.8, 0.2]], np.float32), "decoded")[0]
    assert found != decode(numbered, np.array([[0.8, 0.7]], np.float32), "decoded")[0]


@pytest.mark.parametrize(("task", "value"), [(AGE, np.nan), (SIZE, -1), (BARE, -1)], ids=["values", "labels", "bare"])
def test_an_output_that_is_not_a_number_has_no_rank(task: Task, value: float) -> None:
    logits = np.zeros((1, task.size), np.float32)
    logits[0, 1] = np.nan
    found = decode(task, logits, "logits")[0]
    assert not found.finite
    np.testing.assert_equal(found.value, value)
    assert (found.label, found.to_dict()["value"]) == (None, None)
    assert str(found).endswith("(NaN or infinite numbers)")


def test_a_task_goes_through_a_manifest_and_back() -> None:
    signature = Signature((AGE, Task("c", **_fields(CORN)), SIZE, BARE), Preprocessing(8, 8))
    assert Signature.from_json(signature.to_json(), "x") == signature
    assert signature.sample_shape("age") == (10,)
    record = signature.to_dict()["tasks"][1]
    assert (record["values"], record["decoding"]) == ("20:31:1", "corn")
    with pytest.raises(BundleError, match="decoding"):
        Signature.from_json(signature.to_json().replace("corn", "korn"), "x")
    with pytest.raises(BundleError, match="has 10 values but the network returns 10"):
        Signature.from_json(signature.to_json().replace("20:31:1", "20:30:1"), "x")


def _fields(task: Task) -> dict[str, Any]:
    return {"kind": task.kind, "size": task.size, "unit": task.unit, "options": task.options}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=ordinal;values=3,2,1", "values of ranks ascend, and these do not"),
        ("a=ordinal;values=1,1,2", "values of ranks ascend"),
        ("a=ordinal:b,c;values=1,2,3", "3 values for 2 labels; give one per rank"),
        ("a=ordinal:b,c;unit=years", "ranks without values have no unit"),
        ("a=ordinal;decoding=niu", "decoding"),
        ("a=ordinal;values=0:x", "write start:stop:step"),
        (
            "a=ordinal;activation=softmax",
            "one probability per class, not per threshold; declare it multiclass, or distribution",
        ),
        ("a=ordinal;scale=3", "has scale and offset"),
        ("a=multiclass;decoding=corn", "decoding=corn' is no field=value"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a=ordinal:b,c,d",
            "has 3 labels but the network returns 3 values per sample: 3 thresholds tell 4 ranks apart",
        ),
        ("a=ordinal;values=0:3:1", "has 3 values but the network returns 3 values per sample"),
    ],
)
def test_a_number_of_ranks_that_is_not_the_networks_is_refused(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text).with_size(3)
