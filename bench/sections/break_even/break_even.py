"""Break-even: from how many tasks, and from which batch, one shared pass beats separate models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.sections.where.parts import BACKBONE
from mtl_deploy.bench.sections.where.where import backbone_and_heads, has_subsets
from mtl_deploy.bench.statistics.derived import Locations, derived, ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, Samples

MOST_TASKS = 8  # to calculate up to


@dataclass(frozen=True)
class TaskRow:
    """Separate over shared for a number of tasks.

    Attributes:
        tasks: how many.
        ratio: of the mean over all choices of so many of the network's tasks.
        measured: whether it rests on calls of so many tasks (one, or all); otherwise on backbone and heads.
        beyond: whether the network has fewer tasks: its mean head and mean separate model are then taken for each further one.
    """

    tasks: int
    ratio: Interval
    measured: bool
    beyond: bool


@dataclass(frozen=True)
class BreakEven:
    """Where sharing begins to pay.

    Attributes:
        batch: images per call in the measurement of the tasks.
        rows: by number of tasks; empty where backbone and heads were not measured.
        batches: the ratio of all tasks by batch size.
    """

    batch: int
    rows: tuple[TaskRow, ...]
    batches: Mapping[int, Interval]

    @property
    def count(self) -> int | None:
        """The smallest number of tasks, of two and more, whose interval lies above 1; None: none of the rows.

        One task shares nothing; its row says how alike the two sides are where they do the same work.
        """
        return next((row.tasks for row in self.rows if row.tasks > 1 and row.ratio.low > 1), None)

    @property
    def smallest(self) -> int | None:
        """The smallest measured batch whose interval lies above 1; None: none of them."""
        return next((batch for batch, found in sorted(self.batches.items()) if found.low > 1), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on the figures."""
        first = self.smallest
        later = [] if first is None else [b for b, found in self.batches.items() if b > first and found.low <= 1]
        if not later:
            return ()
        listed = ", ".join(map(str, sorted(later)))
        return (
            f"sharing pays at batch {first} and not at {listed}: the measurement is noisy, or batches differ in kind",
        )

    @property
    def answer(self) -> str:
        """From which number of tasks and which batch sharing pays, in one sentence."""
        parts = []
        if self.rows:
            row = next((row for row in self.rows if row.tasks == self.count), None)
            if row is None:
                parts.append(f"for no number of tasks up to {self.rows[-1].tasks}")
            else:
                how = "" if row.measured else ", by backbone and heads"
                parts.append(f"from {row.tasks} tasks on (ratio {_words(row.ratio)}{how})")
        paying = sorted(batch for batch, found in self.batches.items() if found.low > 1)
        if len(self.batches) > 1 and len(paying) == len(self.batches):
            parts.append(f"at every batch measured, {min(self.batches)} to {max(self.batches)}")
        elif paying and len(self.batches) > 1:
            parts.append(f"from batch {paying[0]} on, of those measured ({', '.join(map(str, sorted(self.batches)))})")
        elif paying:
            parts.append(f"at batch {paying[0]}, the only one measured")
        elif self.batches:
            parts.append(f"at no batch measured ({', '.join(map(str, sorted(self.batches)))})")
        if not parts:
            return "Break-even was not measured."
        shown = "pays" if paying or self.count is not None else "is not shown to pay:"
        return f"Sharing {shown} {', '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        batches = [{"batch": batch, "ratio": asdict(found)} for batch, found in sorted(self.batches.items())]
        return {
            "tasks": {"count": self.count, "batch": self.batch, "rows": [asdict(row) for row in self.rows]},
            "batch": {"smallest": self.smallest, "rows": batches},
            "answer": self.answer,
        }


def break_even(
    batches: Mapping[int, Mapping[str, Nested]],
    tasks: Sequence[str],
    *,
    most: int = MOST_TASKS,
) -> BreakEven:
    """Find where sharing begins to pay. The tasks are judged at the smallest batch.

    For k of the network's n tasks, the mean over all choices of k: separate models take k / n of what all take; the shared artifact
    takes backbone + k / n of what all heads take (:class:`~mtl_deploy.bench.sections.where.where.EndToEnd`). For k = 1 and k =
    n that is what was measured; beyond n it is a model.

    Args:
        batches: by batch size the latencies by contestant: ``shared``, ``separate``, and ``shared:TASK`` of each task.
        tasks: of the shared artifact.
        most: tasks to calculate up to; more than that where the network has more.
    """
    sizes = {size: found for size, found in sorted(batches.items()) if found.get(SHARED) and found.get(SEPARATE)}
    ratios = {size: ratio(found[SEPARATE], found[SHARED]) for size, found in sizes.items()}
    if not sizes:
        return BreakEven(0, (), {})
    size, found = next(iter(sizes.items()))
    return BreakEven(size, _rows(found, tasks, most), ratios)


def _rows(samples: Mapping[str, Nested], tasks: Sequence[str], most: int) -> tuple[TaskRow, ...]:
    n = len(tasks)
    if not has_subsets(samples, tasks):
        return ()
    counts = range(1, max(n, most) + 1)
    names = [SHARED, SEPARATE, *(f"{SHARED}:{task}" for task in tasks)]

    def ratios(found: Locations) -> dict[str, Samples]:
        shared, separate = found[SHARED], found[SEPARATE]
        backbone = backbone_and_heads(found, tasks)[BACKBONE]
        return {str(k): (k / n * separate) / (backbone + k / n * (shared - backbone)) for k in counts}

    figures = derived({name: samples[name] for name in names}, ratios, positive=True)
    return tuple(TaskRow(k, figures[str(k)], k in (1, n), k > n) for k in counts)


def _words(found: Interval) -> str:
    return f"{found.value:.2f}, 95 % interval {found.low:.2f} to {found.high:.2f}"
