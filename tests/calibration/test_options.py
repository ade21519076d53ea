from __future__ import annotations

from typing import get_args

import pytest

from mtl_deploy.calibration.observe import ranges
from mtl_deploy.calibration.options import CHOICES, Int8Options
from mtl_deploy.runtime import OptionError


def test_the_choices_are_the_methods_that_exist() -> None:
    assert ("auto", *ranges.METHODS) == CHOICES
    assert set(ranges.METHODS) == set(get_args(ranges.Method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "--calibration-method guess: choose from auto, minmax"),
        ({"weight_bits": 4}, "--weight-bits 4: choose 7 or 8"),
        ({"samples": 1}, "--calibration-samples 1: use 2 or more"),
        ({"threads": 0}, "--threads 0: use 1 or more"),
    ],
)
def test_values_that_cannot_be_used_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Int8Options(**options)  # type: ignore[arg-type]
