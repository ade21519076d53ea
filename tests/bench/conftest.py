"""The simulated GPU of the runtime's tests, with captures that fork, and measurements that take no time."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.measurement import measure
from mtl_deploy.bench.sections.engine_timings import timings
from tests.fakes.fork import ForkingCuda
from tests.fakes.machine import engine_bundle, machine

__all__ = ["engine_bundle", "gpu", "machine", "quick"]

EngineBundle = Callable[..., Path]


class _Stack(ctypes.Structure):
    """``stack_t`` of ``sigaltstack(2)``."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def _signal_stack() -> Iterator[None]:
    """Give this thread its stack for signals back.

    OpenVINO's processor plugin sets one of its own, and leaves it set when it is freed on another thread: the next signal then
    ends the process with a segmentation fault.
    """
    libc = ctypes.CDLL(None)
    before = _Stack()
    assert libc.sigaltstack(None, ctypes.byref(before)) == 0
    yield
    if "openvino" in sys.modules:
        gc.collect()
        assert libc.sigaltstack(ctypes.byref(before), None) == 0


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
