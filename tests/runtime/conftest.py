"""The simulated GPU, for all of the runtime's tests."""

from __future__ import annotations

from tests.fakes.machine import engine_bundle, machine, trt

__all__ = ["engine_bundle", "machine", "trt"]
