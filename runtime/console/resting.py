"""What a command need not spend processor time on: threads that wait by spinning, and looking for garbage that is not there."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Iterator

_WAITING = "OMP_WAIT_POLICY"


@contextlib.contextmanager
def idle_threads_sleep() -> Iterator[None]:
    """Let OpenMP's idle threads sleep, unless the user has said otherwise. For commands: the block loads PyTorch.

    By default a thread that waits for the others of its team spins. Where another process has one of the cores, that can take
    longer than the work itself. ``OMP_WAIT_POLICY`` is a variable of the OpenMP specification, read once, when the library is
    loaded. It is taken back at the end: a process that is started later, perhaps to be timed, has its own way to wait.
    """
    if _WAITING in os.environ:
        yield
        return
    os.environ[_WAITING] = "PASSIVE"
    try:
        yield
    finally:
        os.environ.pop(_WAITING, None)


def skip_last_collection() -> None:
    """Do not look through all modules for garbage when the process ends, which frees everything."""
    atexit.register(gc.freeze)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for garbage again and again while millions of objects are made that live until the end."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def settling() -> Iterator[None]:
    """Do not look for garbage in what the block makes, neither meanwhile nor later: modules, a network, a graph all stay.

    :func:`settled` ends that.
    """
    with uncollected():
        try:
            yield
        finally:
            gc.freeze()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Let :func:`settling` hold until the block ends, when what is garbage by then can be found again."""
    try:
        yield
    finally:
        gc.unfreeze()
