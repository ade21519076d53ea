"""Axes: round ticks, with room between them."""

from __future__ import annotations

import itertools
import math

import pytest

from mtl_deploy.bench.blocks import axes as svg_axes


@pytest.mark.parametrize("high", [0.003, 0.7, 1, 7.3, 42, 99.9, 1234, 5e6])
def test_linear_axes_have_round_ticks(high: float) -> None:
    axis = svg_axes.linear([0, high])
    assert axis.low == 0
    assert axis.high >= high
    assert 2 <= len(axis.ticks) <= 6
    step = axis.ticks[1]
    assert step / 10 ** math.floor(math.log10(step) + 1e-9) == pytest.approx(1) or round(
        step / 10 ** math.floor(math.log10(step) + 1e-9), 6
    ) in (2, 2.5, 5)
    assert [float(axis.label(tick).replace(",", "")) for tick in axis.ticks] == pytest.approx(list(axis.ticks))


@pytest.mark.parametrize(("low", "high"), [(0.9, 3.5), (0.02, 80), (40, 42), (1, 1e6), (5, 5)])
def test_logarithmic_axes_have_room_between_ticks(low: float, high: float) -> None:
    axis = svg_axes.logarithmic([low, high])
    assert 0 < axis.place(low) <= axis.place(high) < 1
    places = [axis.place(tick) for tick in axis.ticks]
    assert places
    assert all(after - before > 0.05 for before, after in itertools.pairwise(places))


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [3.0], [1.0, math.inf]])
def test_axes_of_odd_values(values: list[float]) -> None:
    for axis in (
        svg_axes.linear(values),
        svg_axes.for_times(values),
        svg_axes.for_factors(values),
        svg_axes.logarithmic(values),
    ):
        assert axis.high > axis.low
        assert 0 <= axis.place(1.0) <= 1
