"""How figures are written, on a page and in a terminal."""

from __future__ import annotations

import pytest

from mtl_deploy.bench.blocks.kinds import SHOWS, printed, shown, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (40.63, "40.6"),
        (119.14, "119"),
        (9.996, "10.0"),
        (1234.4, "1234"),
        (0.01234, "0.0123"),
        (123456.0, "123,456"),
        (-2.949, "-2.95"),
        (0.09996, "0.100"),
        (999.7, "1000"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "show", "text"),
    [
        (0.0371, "percent", "3.7\u202f%"),
        (2.9534, "ratio", "2.95"),
        (144312345, "MB", "144"),
        (288, "count", "288"),
        (-0.0012, "points", "-0.12"),
        (0.0012, "points", "+0.12"),
        (3.1e-05, "error", "3.10e-05"),
    ],
)
def test_kinds_of_figures(value: float, show: str, text: str) -> None:
    assert shown(value, show) == text


@pytest.mark.parametrize(
    ("value", "show", "text"),
    [
        (43.984, "ms", "43.98"),
        (0.0371, "percent", "3.7 %"),
        (0.941, "percentage", "94.1"),
        (144312345, "file MB", "144.3"),
        (1.3149, "joules", "1.31"),
        (288.0, "count", "288"),
        (12345.6, "number", "12,346"),
    ],
)
def test_kinds_of_figures_in_a_terminal(value: float, show: str, text: str) -> None:
    assert printed(value, show) == text


def test_every_kind_writes_the_same_figure_in_both() -> None:
    for show, kind in SHOWS.items():
        if kind.terminal is None:
            continue
        page, terminal = (
            float(text.replace(",", "").split("\u202f")[0].split(" ")[0])
            for text in (shown(41.234 / kind.scale, show), printed(41.234 / kind.scale, show))
        )
        assert page == pytest.approx(terminal, abs=0.5), show


@pytest.mark.parametrize(
    ("value", "show", "text"),
    [
        (43.981, "ms", "43.98"),
        (0.04217, "ms", "0.0422"),
        (0.9996, "ms", "1.00"),
        (0.0, "ms", "0.00"),
        (0.42173, "short ms", "0.422"),
        (0.0042173, "short ms", "0.00422"),
        (793.4, "long ms", "793"),
        (4.6321, "long ms", "4.63"),
    ],
)
def test_a_short_time_keeps_three_digits_in_a_terminal(value: float, show: str, text: str) -> None:
    assert printed(value, show) == text
