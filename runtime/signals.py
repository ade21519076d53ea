"""Signals that come while this package is at work: what a handler raised, and what is removed where the process ends at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_UNFINISHED: set[Path] = set()


@contextmanager
def unfinished(path: Path) -> Iterator[None]:
    """Have a file or folder removed where the process is ended at once while the block runs, without any tidying up."""
    _UNFINISHED.add(path)
    try:
        yield
    finally:
        _UNFINISHED.discard(path)


def remove_unfinished() -> None:
    """Remove what is not finished, just before the process ends."""
    from shutil import rmtree  # only here: importing the runtime stays quick

    for path in list(_UNFINISHED):
        with suppress(OSError):
            rmtree(path) if path.is_dir() else path.unlink()


def handlers_error(error: BaseException) -> BaseException | None:
    """Return what a signal handler written in Python raised: the exception itself, or one of its causes; None: neither.

    Python runs such a handler wherever the main thread happens to be, so that a library call may seem to raise an exception that it
    knows nothing of. An application's own timeout must reach the application, and not be taken for a damaged file. A handler is
    recognised by how it is called: with the signal's number and the frame that was interrupted (https://docs.python.org/3/library/signal.html#signal.signal).
    """
    found: BaseException | None = error
    while found is not None and not _is_handlers(found):
        found = found.__cause__  # codecs wrap any exception in errors of their own
    return found


def _is_handlers(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        code = frame.f_code
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)  # 4: it takes *arguments
        for name in code.co_varnames[:count]:
            value = frame.f_locals.get(name)
            if any(isinstance(one, FrameType) for one in (value if isinstance(value, tuple) else (value,))):
                return True
        traceback = traceback.tb_next
    return False
