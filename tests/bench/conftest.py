"""The simulated GPU of the runtime's tests, with captures that fork, and measurements that take no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.measurement import measure
from mtl_deploy.bench.sections.engine_timings import timings
from tests.fakes.fork import ForkingCuda
from tests.fakes.machine import engine_bundle, machine

__all__ = ["engine_bundle", "gpu", "machine", "quick"]

EngineBundle = Callable[..., Path]


@pytest.fixture
def gpu(machine: Any, quick: None) -> Any:
    """A machine with a GPU and TensorRT 10.3."""
    machine.install()
    ForkingCuda.extend(machine.cuda)
    return machine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of the fewest calls."""
    monkeypatch.setattr(measure, "SLOT_S", 0.001)
    monkeypatch.setattr(measure, "WARM_UP_S", 0.01)
    monkeypatch.setattr(timings, "SLOT_S", 0.0)
