"""Exceptions that a signal handler of the application raised while this package was at work."""

from __future__ import annotations

from types import FrameType


def from_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler written in Python raised an exception.

    Python runs such a handler wherever the main thread happens to be, so a library call may seem to raise what it knows nothing of:
    an application's own timeout must reach the application, and not be taken for a damaged file. A handler is told by how it is
    called: with the signal's number and the frame that was interrupted (https://docs.python.org/3/library/signal.html#signal.signal).
    """
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
