"""Outputs by path, whatever a network returns."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtl_deploy.export.forward.outputs import leaves, listed, locate, pick, usable
from mtl_deploy.runtime.errors import TaskError

AGE, RACE = torch.randn(4, 1), torch.randn(4, 5)
Pair = namedtuple("Pair", ["age", "race"])


@dataclass
class Faces:
    age: torch.Tensor
    race: torch.Tensor
    auxiliary: torch.Tensor | None = None


class Keyed:
    """Has ``keys`` and ``[]`` and nothing else, as outputs of some libraries."""

    def keys(self) -> list[str]:
        return ["age", "race"]

    def __getitem__(self, name: str) -> torch.Tensor:
        return {"age": AGE, "race": RACE}[name]


class Slotted:
    """Attributes, some of them private."""

    def __init__(self) -> None:
        self.age, self.race, self._cache = AGE, RACE, RACE


@pytest.mark.parametrize(
    ("result", "paths"),
    [
        ((AGE, RACE), ["0", "1"]),
        ([AGE, RACE], ["0", "1"]),
        ({"age": AGE, "race": RACE}, ["age", "race"]),
        (OrderedDict(race=RACE, age=AGE), ["race", "age"]),
        (UserDict(age=AGE, race=RACE), ["age", "race"]),
        (Pair(AGE, RACE), ["age", "race"]),
        (Faces(AGE, RACE), ["age", "race", "auxiliary"]),
        (SimpleNamespace(age=AGE, race=RACE), ["age", "race"]),
        (Keyed(), ["age", "race"]),
        (Slotted(), ["age", "race"]),
        ((AGE, None, RACE), ["0", "1", "2"]),
        (([AGE, {"race": RACE}], 3, torch.Size([2])), ["0.0", "0.1.race", "1", "2"]),
        (AGE, [""]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_paths_are_names_and_positions(result: object, paths: list[str]) -> None:
    assert list(leaves(result)) == paths


def test_a_path_finds_what_is_there() -> None:
    result = {"det": [AGE, {"boxes.raw": RACE}], "other": 3}
    assert pick(result, "det.0") is AGE
    assert pick(result, "det.1.boxes.raw") is RACE
    assert locate(result, "0.1.0") == ("det.1.boxes.raw", RACE)
    assert pick(result, 1) == 3
    assert pick(AGE, 0) is AGE
    assert pick({"0": RACE, "a": AGE}, 0) is RACE  # a name goes before a position


@pytest.mark.parametrize("path", ["det.2", "dat", 4, "det.0.0", -1])
def test_a_path_to_nothing_is_refused_with_what_there_is(path: str | int) -> None:
    with pytest.raises(TaskError, match=rf"no output {path!r}; it returns det\.0 \(N, 1\), det\.1 \(N, 5\), count int"):
        pick({"det": [AGE, RACE], "count": 3}, path)


@pytest.mark.parametrize("path", ["9" * 5000, "0." * 50_000, ".", "..", "\u0663"])
def test_a_strange_path_is_refused(path: str) -> None:
    with pytest.raises(TaskError, match="has no output"):
        pick({"a": {"b": AGE}}, path)


def test_a_container_that_holds_itself_ends() -> None:
    result: dict[str, Any] = {"age": AGE}
    result["self"] = result
    assert len(leaves(result)) < 40


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (AGE, ""),
        (AGE[:, 0], ""),
        (torch.zeros(4, 3, 2, 2, 2), ""),
        (None, "is None"),
        (3, "is int, not a tensor"),
        ((RACE, AGE), "is a tuple of 2; name one of its entries"),
        (RACE.argmax(1), "is int64, not floating point"),
        (torch.tensor(0.5), r"has shape \(\)"),
        (torch.zeros(4, 0), "it holds nothing"),
        (torch.zeros(1, 30, 4), "for 4 images"),
    ],
)
def test_what_can_be_no_output_is_said(value: object, reason: str) -> None:
    found = usable(value, 4)
    if not reason:
        assert not found
    else:
        import re

        assert re.search(reason, found)


def test_a_long_list_is_cut() -> None:
    assert listed([AGE] * 40).endswith("and 28 more")


BOX = torch.randn(4, 4)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"a.b": AGE, "a": {"b": RACE}}, {"a.b": AGE, "1.0": RACE}),
        ({"a": {"b": RACE}, "a.b": AGE}, {"0.0": RACE, "a.b": AGE}),  # a name that has dots goes first
        ({1: AGE, "1": RACE}, {"0": AGE, "1": RACE}),
        ({"x": [{"a.b": AGE}, BOX], "x.0": {"a": {"b": RACE}}}, {"0.0.0": AGE, "x.1": BOX, "x.0.a.b": RACE}),
    ],
)
def test_of_two_outputs_with_one_path_each_can_be_read(result: object, expected: dict[str, torch.Tensor]) -> None:
    assert list(leaves(result)) == list(expected)
    for path, value in expected.items():
        assert leaves(result)[path] is value
        assert pick(result, path) is value
        found, other = locate(result, path)
        assert found == path
        assert other is value


def test_keys_that_look_alike_are_refused_where_positions_are_names_too() -> None:
    with pytest.raises(TaskError, match="two outputs of the network are called '0', as text"):
        leaves({0: AGE, "0": RACE})
    assert pick({0: AGE, "0": RACE, "other": BOX}, 2) is BOX
