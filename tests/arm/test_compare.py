"""Answers of another processor count as good only where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.arm.compare import Figure, distance, figures, pixels_apart

RNG = np.random.default_rng(0)
EXACT = RNG.standard_normal((16, 5))
CLASSES = RNG.integers(0, 6, (4, 8, 8))


def answers(error: float, int8: float = 0.05) -> dict[str, Any]:
    """Return one task's answers, the FP32 and the INT8 ones off by shares of the spread."""
    return {
        "pixels": np.zeros((16, 4, 4, 3), np.uint8),
        "fp32/age": EXACT + error * EXACT.std(),
        "int8/age": EXACT + int8 * EXACT.std(),
    }


def by_precision(found: list[Figure]) -> dict[str, Figure]:
    return {one.precision: one for one in found}


def test_the_same_answers_are_as_good() -> None:
    found = figures(answers(0), answers(0), answers(0))
    assert all(one.holds for one in found)
    assert by_precision(found)["int8"].error == pytest.approx(0.05)
    assert by_precision(found)["int8"].apart == 0


def test_fp32_must_be_the_same() -> None:
    assert by_precision(figures(answers(0), answers(0), answers(0.5e-4)))["fp32"].holds
    assert not by_precision(figures(answers(0), answers(0), answers(2e-4)))["fp32"].holds


def test_int8_may_differ_but_be_no_worse() -> None:
    there = answers(0, int8=-0.05)  # as far from FP32, on the other side
    found = by_precision(figures(answers(0), answers(0), there))["int8"]
    assert found.holds
    assert found.apart == pytest.approx(0.1)
    assert not by_precision(figures(answers(0), answers(0), answers(0, int8=0.12)))["int8"].holds


def test_a_graph_that_did_not_run_there_has_no_figure() -> None:
    there = answers(0)
    del there["int8/age"]
    assert [one.precision for one in figures(answers(0), answers(0), there)] == ["fp32"]


def test_classes_are_counted() -> None:
    other = CLASSES.copy()
    other[0, 0, :4] += 1
    assert distance(other, CLASSES, CLASSES) == 4 / CLASSES.size
    truth = {"fp32/wall": CLASSES}
    assert not figures(truth, truth, {"fp32/wall": other})[0].holds


@pytest.mark.parametrize("wrong", [np.full_like(EXACT, np.nan), EXACT[:8]])
def test_what_is_no_answer_is_infinitely_far(wrong: Any) -> None:
    assert distance(wrong, EXACT, EXACT) == float("inf")


def test_pixels_are_compared_in_levels() -> None:
    other = answers(0)
    other["pixels"] = other["pixels"] + np.uint8(3)
    assert pixels_apart(answers(0), other) == 3
    assert pixels_apart(other, answers(0)) == 3
