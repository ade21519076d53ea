"""Scaling: the same comparison with 1, 2, ... threads, and with 1 to 8 heads on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.statistics.derived import locations, ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, Samples, quantile
from mtl_deploy.runtime.console.command import table

Measure = Callable[[Path, Settings], Mapping[str, Nested]]
"""Measures a bundle, or an artifact in one, with settings: latencies by contestant, ``shared`` and ``separate`` among them."""
_MISFIT = 0.1  # of a measured time, from which the fit does not describe it


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
class Threads:
    """With growing numbers of threads."""

    rows: tuple[ThreadsRow, ...]
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the table."""
        names = list(self.rows[0].images_per_s) if self.rows else []
        rows = [
            [
                str(row.threads),
                *("n/a" if (p50 := row.p50_ms.get(name)) is None else f"{p50.value:.2f}" for name in names),
                f"{row.ratio.value:.2f}",
                f"{row.ratio.low:.2f} to {row.ratio.high:.2f}",
            ]
            for row in self.rows
        ]
        return table(["threads", *(f"{name} p50, ms" for name in names), "ratio", "95 % interval"], rows)

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
    measure: Measure,
    path: Path,
    settings: Settings,
    *,
    batch: int = 1,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Threads:
    """Measure with each number of threads.

    Args:
        threads: numbers of threads inside an operator.
        measure: measures once.
        path: the bundle, or an artifact in it.
        settings: but for the threads.
        batch: images a call.
        seed: of the intervals' bootstrap.
        progress: told where the work is.

    Raises:
        WorkError: what ``measure`` raises.
    """
    rows = []
    for number in sorted(set(threads)):
        progress(f"Measuring with {number} thread{'s' if number > 1 else ''}")
        found = measure(path, replace(settings, threads=number))
        calls = {name: _calls(nested) for name, nested in found.items()}
        rows.append(
            ThreadsRow(
                number,
                {name: quantile(one, 0.5) for name, one in calls.items()},
                {name: 1000 * batch / float(one.mean()) for name, one in calls.items()},
                ratio(found[SEPARATE], found[SHARED], seed=seed),
            )
        )
    return Threads(tuple(rows))


@dataclass(frozen=True)
class HeadsRow:
    """With one number of heads.

    Attributes:
        heads: on one backbone.
        shared_ms: location of the shared artifact's latency.
        separate_ms: of as many separate models in sequence.
        ratio: separate over shared.
        ideal: the same by multiply-adds.
    """

    heads: int
    shared_ms: Interval
    separate_ms: Interval
    ratio: Interval
    ideal: float


@dataclass(frozen=True)
class Fit:
    """Least squares over n heads: shared = backbone + n head, separate = n model, in milliseconds.

    Attributes:
        backbone_ms: what a shared call costs without heads, its fixed cost too.
        head_ms: what a head adds.
        model_ms: a separate model.
        largest_residual: the largest distance between a measured time and the fit.
        largest_residual_share: the same, of the measured time.
    """

    backbone_ms: float
    head_ms: float
    model_ms: float
    largest_residual: float
    largest_residual_share: float


@dataclass(frozen=True)
class Heads:
    """With growing numbers of heads.

    Attributes:
        rows: by number of heads.
        fit: None with fewer than two numbers of heads.
    """

    rows: tuple[HeadsRow, ...]
    fit: Fit | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the fit."""
        if self.fit is None or self.fit.largest_residual_share <= _MISFIT:
            return ()
        share = 100 * self.fit.largest_residual_share
        return (f"cost does not grow as backbone + n heads here: a time lies {share:.0f} % from the fit",)

    def text(self) -> str:
        """Return the table, and the fit in a sentence."""
        rows = [
            [
                str(row.heads),
                f"{row.shared_ms.value:.2f}",
                f"{row.separate_ms.value:.2f}",
                f"{row.ratio.value:.2f}",
                f"{row.ratio.low:.2f} to {row.ratio.high:.2f}",
                f"{row.ideal:.2f}",
            ]
            for row in self.rows
        ]
        shown = table(["heads", "shared, ms", "separate, ms", "ratio", "95 % interval", "ideal"], rows)
        return shown if self.fit is None else f"{shown}\n\n{self._sentence(self.fit)}"

    @staticmethod
    def _sentence(fit: Fit) -> str:
        return (
            f"With n heads, shared takes {fit.backbone_ms:.2f} + {fit.head_ms:.3f} n ms and separate {fit.model_ms:.2f} n ms; the "
            f"largest distance to a measured time is {fit.largest_residual:.2f} ms ({100 * fit.largest_residual_share:.1f} %)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {"rows": [asdict(row) for row in self.rows], "fit": None if self.fit is None else asdict(self.fit)}


def measure_heads(
    made: Mapping[int, Path],
    measure: Measure,
    settings: Settings,
    *,
    precision: str | None = None,
    backend: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Heads:
    """Measure bundles of one backbone with different numbers of heads.

    Args:
        made: the bundles by number of heads.
        measure: measures once.
        settings: for all of them.
        precision: that is measured; it says whose multiply-adds make the ideal.
        backend: likewise.
        seed: of the intervals' bootstrap.
        progress: told where the work is.

    Raises:
        BundleError: one has no separate models.
        WorkError: what ``measure`` raises.
    """
    rows = []
    for number, path in sorted(made.items()):
        progress(f"Measuring with {number} head{'s' if number > 1 else ''}")
        pair = find_pair(path, precision, settings.providers, backend)
        ideal = sum(artifact.multiply_adds for artifact in pair.separate) / max(pair.shared.multiply_adds, 1)
        found = measure(path, settings)
        both = {name: found[name] for name in (SHARED, SEPARATE)}
        times = locations(both, seed=seed)
        rows.append(
            HeadsRow(number, times[SHARED], times[SEPARATE], ratio(both[SEPARATE], both[SHARED], seed=seed), ideal)
        )
    return Heads(tuple(rows), fit_heads(rows))


def fit_heads(rows: Sequence[HeadsRow]) -> Fit | None:
    """Fit the model to what was measured; None with fewer than two numbers of heads."""
    if len({row.heads for row in rows}) < 2:
        return None
    n = np.array([row.heads for row in rows], np.float64)
    shared = np.array([row.shared_ms.value for row in rows])
    separate = np.array([row.separate_ms.value for row in rows])
    (backbone, one), *_ = np.linalg.lstsq(np.column_stack([np.ones_like(n), n]), shared, rcond=None)
    model = float(n @ separate / (n @ n))
    residuals = np.abs(np.concatenate([shared - backbone - one * n, separate - model * n]))
    share = residuals / np.concatenate([shared, separate])
    return Fit(float(backbone), float(one), model, float(residuals.max()), float(share.max()))


def _calls(nested: Nested) -> Samples:
    return np.concatenate([samples for rounds in nested for samples in rounds])
