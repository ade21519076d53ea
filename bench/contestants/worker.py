"""The process that one contestant lives in; :class:`~mtl_deploy.bench.contestants.hosts.ProcessHost` starts it and speaks to it.

It gets the contestant's spec and answers ``ready``. Then it gets functions with their arguments, one at a time, calls each with the
contestant, and answers with the result or the error. None, or the end of the other process, ends it.
"""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any

from mtl_deploy.runtime.errors import MtlError

from .messages import Receiver


def main() -> None:
    """Serve one contestant through the connection whose file descriptor is the only argument."""
    (number,) = sys.argv[1:]
    with Connection(int(number)) as pipe, suppress(EOFError, ConnectionResetError, BrokenPipeError):
        _serve(pipe, pipe.recv())


def _serve(pipe: Connection, spec: Any) -> None:
    try:
        from .memory import note_libraries

        starter, load_libraries = spec.resolve()
        if load_libraries is not None:
            load_libraries(spec)
        note_libraries()
        contestant = starter(spec)
    except Exception as error:  # noqa: BLE001 - it is sent to the other process
        _answer_error(pipe, error)
        return
    with closing(contestant):
        pipe.send(("ready", contestant.details))
        receiver = Receiver()
        while (message := pipe.recv()) is not None:
            function, values, named = message
            try:
                result = function(contestant, *map(receiver.unpack, values), **named)
                del values
                pipe.send(("value", result))
            except (EOFError, ConnectionResetError, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001 - it is sent to the other process
                _answer_error(pipe, error)


def _answer_error(pipe: Connection, error: Exception) -> None:
    """Send an error of ours as itself, another as text."""
    if isinstance(error, MtlError):
        pipe.send(("error", error))
    else:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
