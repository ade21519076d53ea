"""Many calls from many threads, and many models opened and closed: equal answers, and nothing grows."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl_deploy.runtime import load
from tests.conftest import TINY, write_tiny_bundle

MUST_BE_ZERO = (
    "answers that differ",
    "descriptors more after the calls",
    "threads more after the calls",
    "MiB more after the calls, beyond 16",
    "descriptors more after opening and closing",
    "threads more after opening and closing",
    "MiB more after opening and closing, beyond 16",
)
CALLS = 1_000_000
THREADS = 8
MODELS = 2_000
_NOISE_MIB = 16  # of the allocator's arenas, one per thread


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Call a small network a million times from 8 threads, and open and close 2,000 models, at scale 1."""
    bundle = write_tiny_bundle(folder / "tiny.mtl")
    calls, models = max(THREADS * 20, round(CALLS * scale)), max(20, round(MODELS * scale))
    figures = {"calls": 0, "answers that differ": 0}
    with load(bundle, providers=["CPU"], threads=1, spinning=False) as model:
        images = np.random.default_rng(seed).integers(0, 256, (16, 1, *TINY, 3), dtype=np.uint8)
        expected = [model(image) for image in images]
        differing = [0] * THREADS

        def work(thread: int, count: int) -> None:
            for number in range(count):
                which = (number + thread) % len(images)
                found = model(images[which])
                differing[thread] += any(not np.array_equal(found[name], expected[which][name]) for name in found)

        figures |= _growth("after the calls", lambda count: _together(work, count), calls // THREADS)
        figures["calls"] = calls // THREADS * THREADS
        figures["answers that differ"] = sum(differing)

    def reopen(count: int) -> None:
        for _ in range(count):
            with load(bundle, providers=["CPU"], threads=1, spinning=False) as opened:
                opened(images[0])

    figures["models opened and closed"] = models
    return figures | _growth("after opening and closing", reopen, models)


def _together(work: Callable[[int, int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number, count)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _growth(when: str, work: Callable[[int], None], count: int) -> dict[str, int]:
    """Do a tenth, look, do the rest, and look again."""
    first = max(1, count // 10)
    work(first)
    before = _held()
    work(count - first)
    descriptors, threads, mib = (max(0, now - then) for now, then in zip(_held(), before, strict=True))
    return {
        f"descriptors more {when}": descriptors,
        f"threads more {when}": threads,
        f"MiB more {when}, beyond {_NOISE_MIB}": max(0, mib - _NOISE_MIB),
    }


def _held() -> tuple[int, int, int]:
    """Return this process's open descriptors, threads and resident MiB."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return len(os.listdir("/proc/self/fd")), int(fields["Threads"]), int(fields["VmRSS"].split()[0]) // 1024  # noqa: PTH208
