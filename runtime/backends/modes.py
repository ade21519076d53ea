"""What graphs on a processor are run for: the latency of one call, or the throughput of several at once."""

from __future__ import annotations

import os

from mtl_deploy.runtime.errors import OptionError

MODES = ("latency", "throughput")


def check_mode(mode: str) -> None:
    """Check a mode's name.

    Raises:
        OptionError: there is none of this name.
    """
    if mode not in MODES:
        raise OptionError(f"mode={mode!r}: use {' or '.join(MODES)}")


def calls_at_once(count: int) -> str:
    """Return how a backend's details say it."""
    return "1 call at once" if count == 1 else f"{count} calls at once"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
