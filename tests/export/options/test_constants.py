"""Other arguments of forward, as they are written on the command line."""

from __future__ import annotations

import json

import pytest

from mtl_deploy.export.baselines.pytorch import _constants
from mtl_deploy.export.options.constants import parse_constants
from mtl_deploy.runtime.errors import OptionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("480x640", (480, 640)),
        ("2x3x4", (2, 3, 4)),
        ("7", 7),
        ("-7", -7),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("swin", "swin"),
        ("2,", (2,)),
        ("2,4", (2, 4)),
        ("a, 0.5", ("a", 0.5)),
        ("", ""),
        ("x=y", "x=y"),
        ("0x10", (0, 10)),
    ],
)
def test_values_are_what_they_look_like(text: str, value: object) -> None:
    found = parse_constants([f"name={text}"])["name"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["size"], "NAME=VALUE"),
        (["=3"], "NAME=VALUE"),
        (["a b=3"], "NAME=VALUE"),
        (["a=1", "a=2"], "'a' is given twice"),
    ],
)
def test_other_forms_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_constants(texts)


def test_a_benchmark_gives_forward_what_the_bundle_was_exported_with() -> None:
    given = parse_constants(["out_size=480x640", "task=flow", "radii=2,4"])
    recorded = {"options": {"constants": json.loads(json.dumps(given))}}
    assert _constants(recorded) == given
    assert _constants({}) == {}
