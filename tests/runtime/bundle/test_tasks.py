from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task, check_tasks
from mtl_deploy.runtime.errors import BundleError, OptionError, TaskError

names = st.from_regex(r"[a-z_][a-z0-9_.-]{0,8}", fullmatch=True).filter(lambda name: name != "image")
labels = st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=5, unique=True).map(tuple)
regressions = st.builds(
    lambda name, unit, scale: Task(name, "regression", unit=unit, size=2, scale=scale),
    names,
    st.none() | st.text(max_size=5),
    st.floats(0.1, 100),
)
classes = st.builds(lambda name, chosen: Task(name, "multiclass", labels=chosen, size=len(chosen)), names, labels)
binaries = st.builds(
    lambda name, threshold: Task(name, "binary", size=1, threshold=threshold), names, st.floats(0.1, 0.9)
)
tasks = st.lists(regressions | classes | binaries, min_size=1, max_size=4, unique_by=lambda task: task.name.lower())


@given(tasks, st.sampled_from(["decoded", "logits"]), st.sampled_from(["uint8", "float"]))
def test_a_signature_survives_json(chosen: list[Task], outputs: Any, image_input: Any) -> None:
    signature = Signature(tuple(chosen), Preprocessing(7, 9, input=image_input), outputs)
    assert Signature.from_json(signature.to_json(), "here") == signature


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("age=regression", Task("age", "regression")),
        ("age=regression:years", Task("age", "regression", unit="years")),
        ("gender=binary:male, female", Task("gender", "binary", labels=("male", "female"))),
        ("race=multiclass:a,b,c", Task("race", "multiclass", labels=("a", "b", "c"))),
        ("depth=depth:metres", Task("depth", "depth", unit="metres")),
        ("seg=segmentation:wall,floor", Task("seg", "segmentation", labels=("wall", "floor"))),
        ("normals=normals", Task("normals", "normals")),
        (
            "gender=binary:male,female;activation=sigmoid;threshold=0.4;output=head",
            Task("gender", "binary", labels=("male", "female"), activation="sigmoid", threshold=0.4, output="head"),
        ),
        (
            "age=regression:years; scale = 100 ;offset=-1.5;output=2;",
            Task("age", "regression", unit="years", scale=100.0, offset=-1.5, output=2),
        ),
        ("race=multiclass;labels=a, b;activation=none", Task("race", "multiclass", ("a", "b"), activation="none")),
        (
            "d=depth;unit=m;valid_range=0.5, 10;upsample=False",
            Task("d", "depth", unit="m", valid_range=(0.5, 10.0), upsample=False),
        ),
        ("s=segmentation:a=b,c;argmax=false", Task("s", "segmentation", labels=("a=b", "c"), argmax=False)),
    ],
)
def test_a_task_can_be_written_in_a_word(text: str, task: Task) -> None:
    assert parse_task(text) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age", "write NAME=KIND"),
        ("age=", "write NAME=KIND"),
        (
            "age=height",
            "unknown kind 'height'; known kinds: regression, binary, multiclass, multilabel",
        ),
        ("depth=normals:x", "normals has no labels"),
        ("seg=segmentation:a,a", "labels repeat"),
        ("1age=binary", "use a letter"),
        ("a/b=binary", "use a letter"),
        ("image=binary", "reserved"),
        ("gender=binary:male", "two labels"),
        ("race=multiclass:a,a", "labels repeat"),
        ("a=binary;activation=relu", "unknown activation 'relu'; known ones: none, sigmoid, softmax, log_softmax"),
        ("a=binary;threshold=high", "threshold cannot be 'high'; write a number between 0 and 1"),
        ("a=binary;threshold=2", "threshold 2.0 is not between 0 and 1"),
        ("a=binary;colour=red", "'colour=red' is no field=value with one of these fields: labels, unit, activation"),
        ("a=binary;size=2", "'size=2' is no field=value"),
        ("a=binary;threshold", "'threshold' is no field=value"),
        ("a=binary:x,y;labels=x,y", "labels is given twice"),
        ("a=depth;valid_range=1", "valid_range cannot be '1'; write the least and the greatest depth"),
        ("a=depth;upsample=no", "upsample cannot be 'no'; write true or false"),
        ("a=regression;activation=sigmoid", "regression values are taken as they are"),
    ],
)
def test_a_malformed_task_is_refused(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "binary"}, "'name' is missing"),
        ({"name": "a", "kind": "binary", "colour": 1}, "unknown field 'colour'"),
        ({"name": "a", "kind": "binary", "labels": "ab"}, "labels: 'ab' is not a list"),
        ({"name": "a", "kind": "binary", "scale": 2.0}, "only a regression.* has scale"),
        ({"name": "a", "kind": "binary", "unit": "years"}, "only a regression.* has a unit"),
        ({"name": "a", "kind": "regression", "labels": ["x"]}, "not labels"),
        ({"name": "a", "kind": "regression", "scale": "big"}, "scale: 'big' is not a number"),
        ({"name": "a", "kind": "binary", "threshold": 1.5}, "between 0 and 1"),
        ({"name": "a", "kind": "binary", "output": True}, "output: true is not text or a whole number"),
        ({"name": "a", "kind": "binary", "stride": 4}, "a binary task has no stride; only dense tasks have one"),
        (
            {"name": "a", "kind": "regression", "upsample": True},
            "a regression has no upsample; only dense tasks have it",
        ),
        ({"name": "a", "kind": "depth", "argmax": True}, "depth has no argmax; only segmentation has it"),
        ({"name": "a", "kind": "normals", "valid_range": [0, 1]}, "normals has no valid_range; only depth has one"),
        ({"name": "a", "kind": "normals", "unit": "m"}, "only a regression.* has a unit, this is normals"),
        ({"name": "a", "kind": "depth", "labels": ["x"]}, "depth has a unit, not labels"),
        ({"name": "a", "kind": "depth", "activation": "softmax"}, "depth values are taken as they are"),
        ({"name": "a", "kind": "normals", "activation": "sigmoid"}, "normals values are taken as they are"),
        ({"name": "a", "kind": "binary", "activation": 1}, "activation: 1 is not text, nor null"),
        ({"name": "a", "kind": "binary", "activation": "Sigmoid"}, "unknown activation 'Sigmoid'"),
        ({"name": "a", "kind": "depth", "upsample": 1}, "upsample: 1 is not true or false"),
        ({"name": "a", "kind": "depth", "stride": True}, "stride: true is not a whole number"),
        ({"name": "a", "kind": "depth", "stride": -4}, "stride: -4 is less than 0"),
        ({"name": "a", "kind": "depth", "valid_range": [1]}, "valid_range: a list of 1; expected 2"),
        ({"name": "a", "kind": "depth", "valid_range": "ab"}, "valid_range: 'ab' is not a list, nor null"),
        ({"name": "a", "kind": "depth", "valid_range": [2, 1]}, "the least first"),
        ({"name": "a", "kind": "depth", "valid_range": [0, float("inf")]}, r"valid_range\[1\]: inf is not a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_dict(fields)


@pytest.mark.parametrize(
    ("task", "size", "message"),
    [
        (Task("a", "binary"), 3, "declare it multiclass"),
        (Task("a", "multiclass"), 1, "declare it binary or regression"),
        (Task("a", "multiclass", labels=("x", "y")), 3, "2 labels but the network returns 3"),
        (Task("a", "segmentation"), 1, "declare it depth"),
        (Task("a", "segmentation", labels=("x", "y")), 3, "2 labels but the network returns 3 channels"),
        (Task("a", "depth"), 3, "depth but the network returns 3 channels; depth is one value per pixel"),
        (Task("a", "normals"), 1, "normals are three values per pixel"),
        (Task("a", "binary", activation="softmax"), 1, "softmax of one value is always the same"),
        (Task("a", "binary", activation="log_softmax"), 1, "log_softmax of one value is always the same"),
        (Task("a", "binary", activation="sigmoid"), 2, "two sigmoids are two answers.*declare it multiclass"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_size_that_does_not_fit_is_refused(task: Task, size: int, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task.with_size(size)


def test_a_dense_task_gets_its_stride_with_its_size() -> None:
    task = Task("seg", "segmentation").with_size(40, stride=4)
    assert (task.size, task.stride, task.dense) == (40, 4, True)
    assert task.with_size(19).stride == 4
    with pytest.raises(TaskError, match="a regression has no stride"):
        Task("age", "regression").with_size(1, stride=4)


@given(st.sampled_from(["segmentation", "depth", "normals"]), st.booleans(), st.booleans(), st.floats(-5, 5))
def test_dense_tasks_survive_json(kind: Any, upsample: bool, argmax: bool, low: float) -> None:
    fields: dict[str, Any] = {"upsample": upsample, "stride": 8}
    if kind == "segmentation":
        fields |= {"argmax": argmax, "labels": ("a", "b"), "size": 2}
    if kind == "depth":
        fields |= {"valid_range": (low, low + 1) if argmax else None, "scale": 2.0, "unit": "m"}
    preprocessing = Preprocessing(64, 96, fit="letterbox" if argmax else "stretch", multiple=32 if upsample else 0)
    signature = Signature((Task("a", kind, **fields),), preprocessing)
    assert Signature.from_json(signature.to_json(), "here") == signature


def test_a_record_of_an_earlier_release_is_read_as_it_was() -> None:
    preprocessing = Preprocessing(32, 48).to_dict()
    for later in ("fit", "multiple"):
        del preprocessing[later]
    assert Preprocessing.from_dict(preprocessing) == Preprocessing(32, 48)
    task = {"name": "age", "kind": "regression", "size": 1, "unit": "years", "scale": 2.0, "offset": 0.0}
    assert Task.from_dict(task).to_dict() == task


@pytest.mark.parametrize("activation", [None, "none", "sigmoid", "softmax", "log_softmax"])
def test_an_activation_survives_json_and_nothing_said_is_none(activation: Any) -> None:
    task = Task("race", "multiclass", size=3, activation=activation)
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert ("activation" in task.to_dict()) == (activation is not None)
    assert task.applied == (activation or "none")
    assert task.gives_probabilities == (activation in ("sigmoid", "softmax"))
    assert Task("seg", "segmentation", size=3, activation=activation).applied == task.applied
    assert "activation" not in Task("age", "regression", activation="none").to_dict()


def test_names_must_differ_and_not_only_in_case() -> None:
    for name in ("age", "Age"):
        with pytest.raises(TaskError, match="two tasks"):
            check_tasks([Task("age", "binary"), Task(name, "binary")])
    with pytest.raises(TaskError, match="no task"):
        check_tasks([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99, this release reads 1"),
        ({"outputs": "raw"}, "none of decoded, logits"),
        ({"tasks": []}, "tasks: a list of 0; expected 1 or more"),
        ({"preprocessing": {}}, "malformed signature"),
    ],
    ids=str,
)
def test_a_malformed_signature_is_refused(change: dict[str, Any], message: str) -> None:
    data = Signature((Task("a", "binary"),), Preprocessing()).to_dict() | change
    with pytest.raises(BundleError, match=message):
        Signature.from_json(json.dumps(data), "here")


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_record_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match="export it again"):
        Signature.from_json(text, "here")


@pytest.mark.parametrize(
    "values",
    [
        {"height": 0},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (0.5,)},
        {"input": "int8"},
        {"fit": "crop"},
        {"multiple": -1},
        {"height": 100, "multiple": 32},
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Preprocessing(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f=multilabel:a,b;thresholds=0.1,x", "thresholds cannot be '0.1,x'; write one probability per label"),
        ("d=detection:a;strides=8,x", "strides cannot be '8,x'; write 8,16,32"),
        ("d=detection:a;top_k=many", "top_k cannot be 'many'; write a whole number"),
        ("d=detection:a;score_threshold=low", "score_threshold cannot be 'low'; write a number"),
        ("d=detection:a;normalized=yes", "normalized cannot be 'yes'; write true or false"),
    ],
)
def test_a_field_that_is_malformed_is_told_by_what_is_wrong_in_it(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)
