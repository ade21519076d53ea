"""Scaling over threads: the same comparison with 1, 2, ... threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.sections.base import Remeasure
from mtl_deploy.bench.statistics.derived import ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, Samples, nested_quantile


@dataclass(frozen=True)
class ThreadsRow:
    """With one number of threads.

    Attributes:
        threads: in an operator.
        p50_ms: by contestant; None where there are too few calls.
        images_per_s: by contestant.
        ratio: separate over shared.
    """

    threads: int
    p50_ms: Mapping[str, Interval | None]
    images_per_s: Mapping[str, float]
    ratio: Interval


@dataclass(frozen=True)
class ThreadScaling:
    """With growing numbers of threads.

    Attributes:
        rows: by number of threads.
        interrupted: whether it ended before its time; it then holds the whole rows.
    """

    rows: tuple[ThreadsRow, ...]
    interrupted: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on the figures."""
        count = len(self.rows)
        rows = f"{count} number{'s' if count > 1 else ''} of threads"
        return (f"the scaling over threads was interrupted after {rows}",) if self.interrupted else ()

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "rows": [
                {
                    "threads": row.threads,
                    "contestants": {
                        name: {
                            "p50_ms": None if (p50 := row.p50_ms[name]) is None else asdict(p50),
                            "images_per_s": rate,
                        }
                        for name, rate in row.images_per_s.items()
                    },
                    "ratio": asdict(row.ratio),
                }
                for row in self.rows
            ]
        }


def measure_threads(
    threads: Sequence[int],
    measure: Remeasure,
    path: Path,
    settings: Settings,
    *,
    batch: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> ThreadScaling:
    """Measure with each number of threads.

    Args:
        threads: numbers of threads inside an operator.
        measure: measures once.
        path: the bundle, or an artifact in it.
        settings: but for the threads.
        batch: images per call.
        progress: shows what is being measured.

    Returns:
        What was measured; after Ctrl-C, the numbers of threads that were whole.

    Raises:
        WorkError: what ``measure`` raises.
        KeyboardInterrupt: nothing was measured yet.
    """
    rows: list[ThreadsRow] = []
    for number in sorted(set(threads)):
        progress(f"Measuring with {number} thread{'s' if number > 1 else ''}")
        try:
            found = measure(path, replace(settings, threads=number))
        except KeyboardInterrupt:
            if not rows:
                raise
            return ThreadScaling(tuple(rows), interrupted=True)
        calls = {name: _calls(nested) for name, nested in found.items()}
        rows.append(
            ThreadsRow(
                number,
                {name: nested_quantile(nested, 0.5) for name, nested in found.items()},
                {name: 1000 * batch / float(one.mean()) for name, one in calls.items()},
                ratio(found[SEPARATE], found[SHARED]),
            )
        )
    return ThreadScaling(tuple(rows))


def _calls(nested: Nested) -> Samples:
    return np.concatenate([samples for rounds in nested for samples in rounds])
