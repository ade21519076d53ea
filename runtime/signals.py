"""Exceptions that a signal handler of the application raised while this package was at work."""

from __future__ import annotations

from types import FrameType


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
