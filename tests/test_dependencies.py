"""The bounds that ``make test-lowest`` and ``make test-resolve`` read."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement

from tests.dependencies import (
    ABSENT,
    GROUPS,
    NEWER,
    NO_WHEELS,
    PARTS,
    PYTHONS,
    ROOT,
    extras,
    lowest,
    requirements,
    strictest,
    without_torch,
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("numpy>=1.23.2", "numpy==1.23.2"),
        ("cuda-bindings>=12.8,<14", "cuda-bindings==12.8"),
        ("mkdocstrings[python]>=0.30,<2", "mkdocstrings[python]==0.30"),
        ("ml-dtypes", "ml-dtypes"),
    ],
)
def test_the_lowest_version_is_the_lower_bound(given: str, wanted: str) -> None:
    assert str(lowest(Requirement(given))) == wanted


def test_of_several_bounds_the_highest_holds() -> None:
    given = map(Requirement, ("numpy>=1.23.2", "pillow", "numpy>=1.23.3", "pillow>=10.1", "numpy"))
    assert sorted(map(str, strictest(given))) == ["numpy>=1.23.3", "pillow>=10.1"]


def test_markers_are_decided_for_the_python_that_is_asked_for() -> None:
    assert "tomli" in {one.name for one in requirements("export", "3.10")}
    assert "tomli" not in {one.name for one in requirements("export", "3.13")}
    assert {one.name for one in requirements("export")} <= {one.name for one in requirements("demo")}


def test_what_the_tables_name_is_there() -> None:
    assert set(NO_WHEELS) <= set(extras())
    assert set(PARTS) <= {one.name for extra in extras() for one in requirements(extra)}
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(named) <= set(PYTHONS)
    for test in {**NEWER, **ABSENT}:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), test
    for group in GROUPS:
        assert len(without_torch(group)) > 20, group
