"""Raw tensors as predictions: the array as it is, and a line that stays short."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.predictions.decoding import decode


def raw(*shape: int) -> Task:
    return Task("boxes", "raw", output="det.0", size=int(np.prod(shape)), shape=shape)


@pytest.mark.parametrize("form", ["decoded", "logits"])
@pytest.mark.parametrize("shape", [(1,), (3, 3), (30, 4), (3, 8, 8, 6), (512,)])
def test_a_tensor_comes_out_as_it_is(shape: tuple[int, ...], form: str) -> None:
    output = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    found = decode(raw(*shape), output, form)  # type: ignore[arg-type]
    for one, sample in zip(found, output, strict=True):
        np.testing.assert_array_equal(one.value, sample)
        assert (one.kind, one.label, one.probabilities, one.dense) == ("raw", None, None, False)


def test_its_line_and_its_record_stay_short_however_large_it_is() -> None:
    value = np.arange(300_000, dtype=np.float32).reshape(1, 1000, 300)
    one = decode(raw(1000, 300), value, "decoded")[0]
    assert str(one) == "1000x300 values, 0 to 3e+05, mean 1.5e+05"
    assert one.to_dict() == {"shape": [1000, 300], "min": 0.0, "mean": 149999.5, "max": 299999.0}
    few = decode(raw(2), np.array([[1.5, -2]], np.float32), "decoded")[0]
    assert str(few) == "1.5, -2"
    assert few.to_dict()["values"] == [1.5, -2.0]


@pytest.mark.parametrize(("count", "listed"), [(12, True), (13, False)])
def test_as_many_numbers_are_listed_as_of_a_regression(count: int, listed: bool) -> None:
    output = np.linspace(-1, 1, count, dtype=np.float32)[None]
    one = decode(raw(count), output, "decoded")[0]
    regression = decode(Task("x", "regression", size=count), output, "decoded")[0]
    assert (str(one) == str(regression)) is listed
    assert (str(one).count(",") == count - 1) is listed
    assert ("values" in one.to_dict()) is listed
    if listed:
        assert one.to_dict()["values"] == regression.to_dict()["value"]


def test_numbers_that_are_not_finite_are_marked_and_json_holds_none_of_them() -> None:
    one = decode(raw(3), np.array([[np.nan, 1, np.inf]], np.float32), "decoded")[0]
    assert not one.finite
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["values"] == [None, 1.0, None]
    none = decode(raw(13), np.full((1, 13), np.nan, np.float32), "decoded")[0]
    assert str(none).startswith("13 values, none finite")


def test_a_signature_keeps_shape_and_columns() -> None:
    tasks = (raw(30, 4), Task("age", "regression", output=0, columns=(2, 3), size=1))
    signature = Signature(tasks, Preprocessing(height=32, width=32))
    again = Signature.from_json(signature.to_json(), "here")
    assert again == signature
    assert again.sample_shape("boxes") == (30, 4)
    assert again.dtype("boxes") == np.float32


def test_columns_are_written_in_one_word() -> None:
    task = parse_task("gender=binary:male,female;output=0;columns=7,9")
    assert (task.output, task.columns) == (0, (7, 9))
    assert parse_task("boxes=raw;output=det.0") == Task("boxes", "raw", output="det.0")
    with pytest.raises(TaskError, match="columns cannot be '7'; write the first column"):
        parse_task("gender=binary;columns=7")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "raw", "size": 5, "shape": (2, 2)}, "does not fit a raw tensor of 5 values"),
        ({"kind": "regression", "size": 4, "shape": (2, 2)}, "does not fit a regression"),
        ({"kind": "raw", "labels": ("a", "b")}, "a raw tensor has no labels"),
        ({"kind": "raw", "scale": 2.0}, "only a regression"),
        ({"kind": "binary", "columns": (9, 7)}, r"columns \[9, 7\]"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task("a", **fields)  # type: ignore[arg-type]
