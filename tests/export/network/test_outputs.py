"""Outputs by key, whatever a network returns."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mtl_deploy.export.network.outputs import flatten_outputs
from mtl_deploy.runtime.errors import TaskError

AGE, RACE = torch.randn(4, 1), torch.randn(4, 5)
Pair = namedtuple("Pair", ["age", "race"])


@dataclass
class Faces:
    age: torch.Tensor
    race: torch.Tensor
    auxiliary: torch.Tensor | None = None


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        ((AGE, RACE), [0, 1]),
        ([AGE, RACE], [0, 1]),
        ({"age": AGE, "race": RACE}, ["age", "race"]),
        (OrderedDict(race=RACE, age=AGE), ["race", "age"]),
        (Pair(AGE, RACE), ["age", "race"]),
        (Faces(AGE, RACE), ["age", "race"]),
        ((AGE, None, RACE), [0, 2]),
    ],
    ids=["tuple", "list", "dict", "ordered-dict", "named-tuple", "dataclass", "none-left-out"],
)
def test_keys_are_names_or_positions(result: object, keys: list[str | int]) -> None:
    outputs = flatten_outputs(result, batch=4)
    assert list(outputs) == keys
    assert {tuple(tensor.shape) for tensor in outputs.values()} == {(4, 1), (4, 5)}


def test_a_value_an_image_is_a_column() -> None:
    outputs = flatten_outputs((AGE[:, 0], RACE), batch=4)
    torch.testing.assert_close(outputs[0], AGE, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (AGE, r"one tensor of shape \(4, 1\).*single-task"),
        ((AGE,), r"returns one output \(0\)"),
        ({}, "returns no output"),
        ("age", "a value of type str"),
        ((AGE, (RACE, AGE)), "output 1 is a tuple of 2, not a tensor; nested"),
        ({"age": AGE, "more": {"race": RACE}}, "output 'more' is a dict of 1"),
        ({("a", 1): AGE, "race": RACE}, r"the key \('a', 1\)"),
        ((AGE, RACE.argmax(1)), "output 1 is int64, not floating point"),
        ({"depth": torch.zeros(4, 1, 2, 8, 8), "age": AGE}, r"'depth' has shape \(4, 1, 2, 8, 8\)"),
        ((torch.tensor(0.5), RACE), r"output 0 has shape \(\)"),
        ((AGE, torch.zeros(4, 0)), r"output 1 has shape \(4, 0\)"),
        ((AGE, RACE[:2]), r"shape \(2, 5\) for 4 images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_name_the_output(result: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        flatten_outputs(result, batch=4)


def test_outputs_of_different_batches_are_refused_when_the_batch_is_not_known() -> None:
    with pytest.raises(TaskError, match=r"differ in their first dimension \(\[2, 4\]\)"):
        flatten_outputs((AGE, RACE[:2]))


def test_maps_keep_their_form_and_get_a_channel() -> None:
    found = flatten_outputs({"out": torch.zeros(4, 5, 8, 8), "depth": torch.zeros(4, 8, 8), "aux": None, "age": AGE})
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "out": (4, 5, 8, 8),
        "depth": (4, 1, 8, 8),
        "age": (4, 1),
    }
