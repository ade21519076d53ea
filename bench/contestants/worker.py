"""The process that one contestant lives in; :class:`~mtl_deploy.bench.contestants.hosts.ProcessHost` starts it and speaks to it.

It gets the paths where modules are found, then the contestant's spec, and answers ``ready``. Then it gets functions with their
arguments, one at a time, calls each with the contestant and answers with the result or the error. None, or the end of the other
process, ends it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

from mtl_deploy.runtime.errors import MtlError

from .messages import Receiver


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one contestant.

    Args:
        arguments: the number of the connection's file descriptor.
    """
    for name in (
        "SIGINT",
        "SIGHUP",
    ):  # a terminal sends them to all: the process that started this one says when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    (number,) = sys.argv[1:] if arguments is None else arguments
    with Connection(int(number)) as pipe:
        try:
            sys.path.extend(path for path in pipe.recv() if path not in sys.path)
            _serve(pipe, pipe.recv())
        except (EOFError, ConnectionResetError, BrokenPipeError):
            pass


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


if __name__ == "__main__":
    main()
