"""Work on several images at once: Pillow and numpy release the GIL while they decode and resize."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_MOST_THREADS = 8


def each(work: Callable[[int], Result], count: int, *, threads: bool = True) -> list[Result]:
    """Return ``work(0)`` to ``work(count - 1)``, computed in as many threads as there are cores for this process.

    The threads end with the call: none is left for a fork to lose. If several fail, the error is that of the first in order; what
    has not begun by then is left out.

    Args:
        work: to do for each number.
        count: how often.
        threads: False: one after the other, in the calling thread.
    """
    workers = min(count, _cores(), _MOST_THREADS)
    if workers < 2 or not threads:
        return [work(index) for index in range(count)]
    from concurrent.futures import ThreadPoolExecutor  # only here: importing the runtime stays quick

    with ThreadPoolExecutor(workers, thread_name_prefix="mtl-images") as pool:
        return list(pool.map(work, range(count)))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
