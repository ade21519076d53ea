from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.bench.measurement.agreement import agreement, complaint, tolerance

SHARED = Spec("shared", "shared", "shared", Path(), (), ("age", "classes"), "fp32", Settings())
OTHER = replace(SHARED, name="separate", title="2 separate in sequence", kind="separate")
AGE = np.array([[100.0], [50.0]], np.float32)
CLASSES = np.zeros((2, 10, 10), np.uint8)


def differing(pixels: int) -> Any:
    changed = CLASSES.copy()
    changed.reshape(-1)[:pixels] = 7
    return changed


@pytest.mark.parametrize(("error", "holds"), [(0.0, True), (0.09, True), (0.2, False), (float("nan"), False)])
def test_values_may_differ_by_a_share_of_the_largest(error: float, holds: bool) -> None:
    found = agreement(SHARED, {"age": AGE}, OTHER, {"age": AGE + np.float32(error)})
    assert found["age"].holds is holds
    assert (complaint(OTHER, found) is None) is holds


@pytest.mark.parametrize(("precision", "pixels", "holds"), [("fp32", 1, True), ("fp32", 3, False), ("int8", 30, True)])
def test_of_class_maps_the_share_of_other_pixels_counts(precision: str, pixels: int, holds: bool) -> None:
    other = replace(OTHER, precision=precision)
    found = agreement(SHARED, {"classes": CLASSES}, other, {"classes": differing(pixels)})
    assert found["classes"].error == pytest.approx(pixels / 200)
    assert found["classes"].holds is holds


def test_dense_values_are_compared_like_others() -> None:
    depth = np.linspace(0, 10, 200, dtype=np.float32).reshape(2, 10, 10)
    spec = replace(OTHER, tasks=("depth",))
    assert agreement(SHARED, {"depth": depth}, spec, {"depth": depth + np.float32(0.005)})["depth"].holds
    assert not agreement(SHARED, {"depth": depth}, spec, {"depth": depth.mean(0, keepdims=True)})["depth"].holds


def test_a_missing_output_is_no_agreement_and_a_task_that_is_not_asked_for_is_left_out() -> None:
    assert not agreement(SHARED, {"age": AGE}, OTHER, {})["age"].holds
    only = replace(SHARED, name="shared:age", kind="subset", tasks=("age",))
    assert set(agreement(SHARED, {"age": AGE, "classes": CLASSES}, only, {"age": AGE})) == {"age"}


def test_between_precisions_the_looser_tolerance_counts() -> None:
    int8 = replace(OTHER, precision="int8")
    assert tolerance(int8, SHARED) == tolerance(SHARED, int8) > tolerance(int8, int8) > tolerance(SHARED, OTHER)


def test_a_complaint_names_task_contestant_and_figures() -> None:
    found = agreement(SHARED, {"age": AGE}, OTHER, {"age": AGE + 1})
    assert complaint(OTHER, found) == (
        "task 'age': shared and separate differ by 1 (allowed 0.1), so they are not compared for speed; export the bundle again"
    )
