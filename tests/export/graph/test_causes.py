"""Errors of libraries, cut to one line."""

from __future__ import annotations

import pytest

from mtl_deploy.export.graph.causes import first_line, named_line


@pytest.mark.parametrize(
    ("message", "line", "named"),
    [
        ("\n  too large \nmore", "too large", "ValueError: too large"),
        ("too large by far", "too large", "ValueError: too large"),
        (" \n", "ValueErro", "ValueError: no message"),
        ("", "ValueErro", "ValueError: no message"),
    ],
)
def test_an_error_is_told_in_one_line(message: str, line: str, named: str) -> None:
    assert first_line(ValueError(message), 9) == line
    assert named_line(ValueError(message), 9) == named


def test_a_line_is_whole_where_nothing_limits_it() -> None:
    assert first_line(OSError("a" * 500 + "\nb")) == "a" * 500
    assert named_line(OSError("a" * 500)) == "OSError: " + "a" * 500
