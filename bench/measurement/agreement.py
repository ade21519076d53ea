"""Whether two contestants compute the same: the speed of a wrong answer is of no interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_deploy.bench.contestants.contestant import Outputs
from mtl_deploy.bench.contestants.specs import Spec

_RELATIVE = {"fp32": 1e-3, "fp16": 3e-2}  # what graphs' outputs may differ by, of a task's largest value
_RELATIVE_OTHERS = {"fp32": 2e-3, "fp16": 4e-2, "int8": 0.4}
"""Between engines, libraries and precisions: twice what mtl-export lets an engine differ by from PyTorch, as both sides may."""
_TF32 = 2e-2  # for fp32 engines that may compute in TF32: 10 bits of mantissa
_PIXELS = {"fp32": 0.005, "fp16": 0.03, "int8": 0.2}  # share of a class map's pixels that may have another class


@dataclass(frozen=True)
class Agreement:
    """How much one task's outputs differ.

    Attributes:
        error: the largest difference; of class maps the share of pixels of another class.
        allowed: the most that is called the same.
    """

    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether they are the same; NaN is not."""
        return self.error <= self.allowed


def agreement(reference: Spec, expected: Outputs, other: Spec, found: Outputs) -> dict[str, Agreement]:
    """Compare the outputs of the tasks that both compute.

    Args:
        reference: the contestant that the other is compared with.
        expected: its outputs, by task, of any shape; class maps are integers.
        other: the contestant to compare.
        found: its outputs.

    Returns:
        By task; an output that is missing or of another shape differs by infinity.
    """
    relative, pixels = tolerance(reference, other), max(_pixels(spec.precision) for spec in (reference, other))
    result = {}
    for task in other.tasks:
        if task not in expected:
            continue
        first, second = expected[task], found.get(task)
        if second is None or first.shape != second.shape:
            result[task] = Agreement(float("inf"), relative)
        elif np.issubdtype(first.dtype, np.integer):
            result[task] = Agreement(float(np.mean(first != second)), pixels)
        else:
            allowed = relative * max(float(np.abs(first).max()), 1.0)
            error = float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())
            result[task] = Agreement(error, allowed)
    return result


def complaint(spec: Spec, found: dict[str, Agreement]) -> str | None:
    """Say which task differs too much, with the figures; None where they agree."""
    for task, one in found.items():
        if not one.holds:
            form = f" ({spec.title})" if spec.name != "separate" else ""
            remedy = "build the engines again" if spec.engines else "export the bundle again"
            who = "separate" if spec.kind in ("separate", "concurrent", "one_graph") else spec.name
            return (
                f"task {task!r}: shared and {who}{form} differ by {one.error:.3g} (allowed {one.allowed:.3g}), so they are not "
                f"compared for speed; {remedy}"
            )
    return None


def tolerance(first: Spec, second: Spec) -> float:
    """Return what two contestants' outputs may differ by, of a task's largest value: the looser one's."""
    own = first.precision == second.precision and first.starter == second.starter and not first.engines
    return max(_relative(spec, own=own) for spec in (first, second))


def _relative(spec: Spec, *, own: bool) -> float:
    if own:
        return _RELATIVE.get(spec.precision, 0.1)
    if spec.engines and spec.precision == "fp32" and spec.artifacts[0].details.get("settings", {}).get("tf32"):
        return _TF32
    return _RELATIVE_OTHERS.get(spec.precision, 0.4)


def _pixels(precision: str) -> float:
    return _PIXELS.get(precision, 0.2)
