"""Scaling over heads: the same comparison with 1 to 8 heads on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.sections.base import Remeasure
from mtl_deploy.bench.statistics.derived import locations, ratio
from mtl_deploy.bench.statistics.nested import Interval

_MISFIT = 0.1  # of a measured time, from which the fit does not describe it


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
class HeadsFit:
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
class HeadScaling:
    """With growing numbers of heads.

    Attributes:
        rows: by number of heads.
        fit: None with fewer than two numbers of heads.
        interrupted: whether it ended before its time; it then holds the whole rows.
    """

    rows: tuple[HeadsRow, ...]
    fit: HeadsFit | None
    interrupted: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on the figures."""
        count = len(self.rows)
        rows = f"{count} number{'s' if count > 1 else ''} of heads"
        found = [f"the scaling over heads was interrupted after {rows}"] if self.interrupted else []
        if self.fit is not None and self.fit.largest_residual_share > _MISFIT:
            share = 100 * self.fit.largest_residual_share
            found.append(f"cost does not grow as backbone + n heads here: a time lies {share:.0f} % from the fit")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {"rows": [asdict(row) for row in self.rows], "fit": None if self.fit is None else asdict(self.fit)}


def measure_heads(
    made: Mapping[int, Path],
    measure: Remeasure,
    settings: Settings,
    *,
    precision: str | None = None,
    backend: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> HeadScaling:
    """Measure bundles of one backbone with different numbers of heads.

    Args:
        made: the bundles by number of heads.
        measure: measures once.
        settings: for all of them.
        precision: that is measured; it says whose multiply-adds make the ideal.
        backend: likewise.
        progress: shows what is being measured.

    Returns:
        What was measured; after Ctrl-C, the numbers of heads that were whole.

    Raises:
        BundleError: one has no separate models.
        WorkError: what ``measure`` raises.
        KeyboardInterrupt: nothing was measured yet.
    """
    rows: list[HeadsRow] = []
    for number, path in sorted(made.items()):
        progress(f"Measuring with {number} head{'s' if number > 1 else ''}")
        pair = find_pair(path, precision, settings.providers, backend)
        ideal = sum(artifact.multiply_adds for artifact in pair.separate) / max(pair.shared.multiply_adds, 1)
        try:
            found = measure(path, settings)
        except KeyboardInterrupt:
            if not rows:
                raise
            return HeadScaling(tuple(rows), fit_heads(rows), interrupted=True)
        both = {name: found[name] for name in (SHARED, SEPARATE)}
        times = locations(both)
        rows.append(HeadsRow(number, times[SHARED], times[SEPARATE], ratio(both[SEPARATE], both[SHARED]), ideal))
    return HeadScaling(tuple(rows), fit_heads(rows))


def fit_heads(rows: Sequence[HeadsRow]) -> HeadsFit | None:
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
    return HeadsFit(float(backbone), float(one), model, float(residuals.max()), float(share.max()))
