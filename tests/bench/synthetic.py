"""Latencies with a known backbone and known heads, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl_deploy.bench.statistics.nested import Nested

BACKBONE = 20.0
HEADS = {"age": 1.0, "gender": 2.0, "race": 5.0}


def nested(ms: float, rng: np.random.Generator, *, noise: float = 0.01, machine: np.ndarray | None = None) -> Nested:
    """Return 3 processes of 8 rounds of 20 calls; ``machine`` is what slows all contestants alike, ``(3, 8)``."""
    common = np.ones((3, 8)) if machine is None else machine
    return [[ms * common[p, r] * (1 + noise * rng.standard_normal(20)) for r in range(8)] for p in range(3)]


def samples(
    *, backbone: float = BACKBONE, heads: Mapping[str, float] = HEADS, seed: int = 0, noise: float = 0.01
) -> dict[str, Nested]:
    """Return the shared artifact, the separate models, and the shared artifact for each task, side by side on one machine."""
    rng = np.random.default_rng(seed)
    machine = 1 + 0.05 * rng.standard_normal((3, 8))
    times = {"shared": backbone + sum(heads.values()), "separate": len(heads) * backbone + sum(heads.values())}
    times |= {f"shared:{task}": backbone + ms for task, ms in heads.items()}
    return {name: nested(ms, rng, noise=noise, machine=machine) for name, ms in times.items()}
