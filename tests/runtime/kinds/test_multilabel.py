"""Several labels at once: which hold, from which threshold on, in words, JSON and a picture; and what a task file may not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.predictions.decoding import Prediction, decode
from mtl_deploy.runtime.show.picture import show

FACE = parse_task("face=multilabel:Smiling,Young,Bald;thresholds=0.5,0.8,0.3").with_size(3)


def said(task: Task, *rows: list[float], form: Any = "decoded") -> list[Prediction]:
    return decode(task, np.array(rows, np.float32), form)


@pytest.mark.parametrize("seed", range(20))
def test_each_label_holds_from_its_own_threshold_on(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((50, 4)) * 10.0 ** random.integers(-2, 3)).astype(np.float32)
    own = [0.5, random.uniform(0.05, 0.95), 0.2, 0.9]
    task = Task.from_dict({"name": "a", "kind": "multilabel", "size": 4, "thresholds": own})
    for row, prediction in zip(logits, decode(task, logits, "logits"), strict=True):
        shares = 1 / (1 + np.exp(-row.astype(np.float64)))
        np.testing.assert_allclose(prediction.probabilities, shares, atol=1e-6)
        sure = np.abs(shares - own) > 1e-6
        np.testing.assert_array_equal(prediction.value[sure], (shares >= own)[sure])


def test_one_threshold_is_that_of_all_labels_and_logits_decode_as_the_graph_does() -> None:
    task = parse_task("face=multilabel:a,b;threshold=0.7").with_size(2)
    shares = np.array([[0.69, 0.71], [0.7, 0.2]], np.float32)
    assert [list(found.value) for found in said(task, *shares.tolist())] == [[False, True], [True, False]]
    logits = np.log(shares / (1 - shares))
    for one, other in zip(decode(task, logits, "logits"), said(task, *shares.tolist()), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-6)
    given_as_sigmoid = parse_task("face=multilabel:a,b;threshold=0.7;activation=sigmoid").with_size(2)
    assert decode(given_as_sigmoid, shares, "logits") == said(task, *shares.tolist())


def test_of_pairs_the_second_is_what_holds() -> None:
    logits = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64)).reshape(30, 3, 2)
    shares = powers / powers.sum(axis=2, keepdims=True)
    task = parse_task("face=multilabel:Smiling,Young,Bald;pairs=true;thresholds=0.5,0.8,0.3").with_size(6)
    given = {"none": logits, "softmax": shares.reshape(30, 6), "log_softmax": np.log(shares).reshape(30, 6)}
    for activation, values in given.items():
        of = Task.from_dict({**task.to_dict(), "activation": activation})
        found = decode(of, values.astype(np.float32), "logits")
        np.testing.assert_allclose([each.probabilities for each in found], shares[:, :, 1], atol=1e-6)
        np.testing.assert_array_equal([each.value for each in found], shares[:, :, 1] >= (0.5, 0.8, 0.3))
    signature = Signature((task,), Preprocessing(8, 8))
    assert signature.sample_shape("face") == (3,)
    assert Signature((task,), Preprocessing(8, 8), "logits").sample_shape("face") == (6,)
    assert Signature.from_json(signature.to_json(), "x") == signature


def test_predictions_read_well_in_words_and_json_and_are_equal_by_their_labels() -> None:
    found, none = said(FACE, [0.971, 0.85, 0.1], [0.1, 0.79, 0.2])
    assert str(found) == "Smiling (97.1 %), Young (85.0 %)"
    assert str(none) == "none of 3 labels"
    assert found.to_dict() == {
        "value": [True, True, False],
        "labels": ["Smiling", "Young"],
        "probabilities": [pytest.approx(0.971), pytest.approx(0.85), pytest.approx(0.1)],
    }
    assert found == said(FACE, [0.6, 0.9, 0.2])[0]
    assert found != none
    assert (found.label, found.probability) == (None, None)
    unnamed = Task("a", "multilabel", size=40)
    assert str(said(unnamed, [0.9, *[0.1] * 38, 0.8])[0]) == "class 0 (90.0 %), class 39 (80.0 %)"
    many = str(said(unnamed, [0.9] * 40)[0])
    assert many.endswith("class 11 (90.0 %), ... (40 of 40 labels)")


def test_a_label_whose_logit_is_not_a_number_does_not_hold_and_that_is_said() -> None:
    found = said(FACE, [0.9, float("nan"), 0.1])[0]
    assert not found.finite
    assert list(found.value) == [True, False, False]
    assert str(found) == "Smiling (90.0 %) (NaN or infinite numbers)"
    assert found.to_dict() == {
        "value": None,
        "labels": None,
        "probabilities": [pytest.approx(0.9), None, pytest.approx(0.1)],
        "finite": False,
    }
    assert not said(FACE, [float("inf"), float("nan"), 1.0], form="logits")[0].value[1]


def test_the_labels_stand_below_the_picture() -> None:
    image = np.full((400, 400, 3), 200, np.uint8)
    held = show(image, {"face": said(FACE, [0.9, 0.9, 0.9])[0]}, [FACE])
    none = show(image, {"face": said(FACE, [0.1, 0.1, 0.1])[0]}, [FACE])
    assert held.size[0] == none.size[0]
    assert not np.array_equal(np.asarray(held)[-40:], np.asarray(none)[-40:])


def test_a_task_goes_through_a_manifest_and_back() -> None:
    signature = Signature((FACE,), Preprocessing(8, 8))
    record = signature.to_dict()["tasks"][0]
    assert (record["thresholds"], record["labels"]) == ([0.5, 0.8, 0.3], ["Smiling", "Young", "Bald"])
    assert Signature.from_json(signature.to_json(), "x") == signature
    assert signature.sample_shape("face") == (3,)
    broken = signature.to_json().replace("0.8", "1.8")
    with pytest.raises(BundleError, match="thresholds"):
        Signature.from_json(broken, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=multilabel:b,c;thresholds=0.5", "1 thresholds for 2 labels; give one per label, or threshold"),
        ("a=multilabel:b,c;thresholds=0.5,1.5", "thresholds: 1.5 is not between 0 and 1"),
        ("a=multilabel:b,c;thresholds=0.5,x", "write one probability per label"),
        ("a=multilabel:b,c;threshold=0.4;thresholds=0.5,0.5", "threshold 0.4 and thresholds; give threshold for all"),
        ("a=multilabel;unit=years", "only a regression.* has a unit"),
        ("a=multilabel;activation=softmax", "exactly one label holds; declare it multiclass, or say pairs = true"),
        ("a=multilabel;pairs=true;activation=sigmoid", "two answers about one label"),
        ("a=multilabel;pairs=yes", "pairs cannot be 'yes'; write true or false"),
        ("a=multiclass:b,c;thresholds=0.5,0.5", "thresholds=0.5,0.5' is no field=value"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("a=multilabel:b,c", 3, "has 2 labels but the network returns 3 values"),
        ("a=multilabel:b,c", 4, "if two values belong to each label, say pairs = true"),
        ("a=multilabel;pairs=true", 5, "has pairs, but the network returns 5 values per sample, an odd number"),
        (
            "a=multilabel:b,c;pairs=true",
            2,
            "has 2 labels but the network returns 2 values per sample, and two are one label",
        ),
        ("a=multilabel;thresholds=0.5,0.5", 40, "has 2 thresholds but the network returns 40"),
        ("a=binary", 40, "If they are 40 yes-or-no answers, declare it multilabel"),
    ],
)
def test_a_network_of_another_size_is_refused(text: str, size: int, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text).with_size(size)
