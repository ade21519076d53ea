"""What holds threads or a GPU does not live on in a forked child: say so, and let the child end.

A fork copies memory, but of all threads only the one that forked. The pools of ONNX Runtime and OpenVINO, CUDA's context and a
stream's threads are gone in the child, while their locks and counters say otherwise: a call may wait for ever, and so may a
destructor, when the child ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from typing import ClassVar

from .errors import RunError


class Origin:
    """The process that something was made in.

    Args:
        what: how errors call it, such as ``the model``.
        instead: what to do in the child.
        held: kept for ever in a forked child, since freeing it there would wait for threads that do not exist. Must allow weak
            references. None: nothing.
    """

    def __init__(self, what: str, instead: str, held: object = None) -> None:
        self._what = what
        self._instead = instead
        self._made_in = os.getpid()
        self._forks = _Forks.count
        _Forks.used = True
        if held is not None:
            _Forks.held[id(held)] = held

    @property
    def forked(self) -> bool:
        """Whether this process is a child that was forked after it was made."""
        return self._forks != _Forks.count

    def check(self) -> None:
        """Check that this is still the same process.

        Raises:
            RunError: it is a forked child.
        """
        if self.forked:
            raise RunError(
                f"{self._what} was made in process {self._made_in}, and this is process {os.getpid()}, forked from it: threads and "
                f"a GPU's context do not survive a fork; {self._instead}"
            )


class _Forks:
    """What is known about this process's past.

    Attributes:
        count: how many forks lie between the process that imported this module and this one.
        used: whether anything was ever made here; otherwise a child is none of our business.
        held: what must not be freed in a child, by its identity, as it may not be hashable.
    """

    count: ClassVar[int] = 0
    used: ClassVar[bool] = False
    held: ClassVar[weakref.WeakValueDictionary[int, object]] = weakref.WeakValueDictionary()


def _in_child() -> None:
    _Forks.count += 1
    for held in list(_Forks.held.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))  # it is never freed, not even when the interpreter ends
    _Forks.held.clear()
    if _Forks.used and not sys.modules.keys().isdisjoint(("onnxruntime", "openvino")):
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Let the C library skip what is registered to run at the exit: a destructor of ONNX Runtime waits there for its own thread.

    So does one of OpenVINO, which may also abort. What Python runs at exit is unaffected, as it comes before. The status is kept.
    glibc alone has ``on_exit`` (its manual, "Cleanups on Exit"); elsewhere nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.on_exit(ctypes.cast(library._exit, ctypes.c_void_p), None)  # on_exit's functions get the status first


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:  # Windows has no fork
    _register(after_in_child=_in_child)
