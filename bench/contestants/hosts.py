"""Where contestants live: each in its own process, so that they share no memory, threads or allocator; or in this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mtl_deploy.runtime.errors import MtlError, WorkError

from . import worker
from .contestant import Contestant
from .forms import start
from .messages import Sender
from .processes import CLOSING_S, Child
from .specs import CONCURRENT, ONE_GRAPH, SEPARATE, STARTER, Spec

P = ParamSpec("P")
T = TypeVar("T")


class Host(Protocol):
    """Where one contestant lives.

    Attributes:
        spec: the contestant's.
    """

    spec: Spec

    @property
    def details(self) -> str:
        """The contestant's library, version and provider or device."""
        ...

    def run(self, function: Callable[Concatenate[Contestant, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function(contestant, ...)`` where the contestant lives and return its result.

        Args:
            function: defined in a module, so that another process finds it.
            args: its further arguments.
            kwargs: its keyword arguments.

        Raises:
            MtlError: the function raised it.
            WorkError: the contestant's process died, or the function raised an error of another kind, which the message names.
        """
        ...

    def close(self) -> None:
        """End the contestant. A closed host cannot run anything; closing twice is allowed."""
        ...


class LocalHost:
    """This process.

    Args:
        spec: of the contestant.
        separate: the host of the separate engines, which their other forms run too; None: the contestant loads its own.
    """

    def __init__(self, spec: Spec, separate: LocalHost | None = None) -> None:
        self.spec = spec
        self.contestant: Contestant
        if spec.starter == STARTER:
            self.contestant = start(spec, separate.contestant if separate is not None else None)
        else:
            self.contestant = _started(spec)
        self._open = True

    @property
    def details(self) -> str:
        """The contestant's library, version and provider or device."""
        return self.contestant.details

    def run(self, function: Callable[Concatenate[Contestant, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function(contestant, ...)``."""
        return function(self.contestant, *args, **kwargs)

    def close(self) -> None:
        """Close the contestant."""
        if self._open:
            self._open = False
            self.contestant.close()


def _started(spec: Spec) -> Contestant:
    try:
        return spec.resolve()[0](spec)
    except MtlError:
        raise
    except Exception as error:
        raise WorkError(f"{spec.name} did not start: {type(error).__name__}: {error}") from error


class ProcessHost:
    """A process of the contestant's own, which runs :mod:`mtl_deploy.bench.contestants.worker`.

    Making one starts the process and returns at once; the first use waits until the contestant is loaded. Ctrl-C does not reach the
    process; when this process ends, however it ends, that one does too.

    Args:
        spec: of the contestant.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._details: str | None = None
        self._sender = Sender()
        self._pipe, theirs = Pipe()
        with theirs:
            self._child = Child(worker.__name__, [str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self._waiting = True
        with suppress(OSError):  # it died already; the first use says so
            self._pipe.send(spec)

    @property
    def details(self) -> str:
        """The contestant's library, version and provider or device; waits until it is loaded."""
        if self._details is None:
            self._details = str(self._receive())
        return self._details

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._child.pid

    def run(self, function: Callable[Concatenate[Contestant, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function(contestant, ...)`` in the process; see :meth:`Host.run`."""
        _ = self.details
        if self._waiting or self._pipe.closed:
            raise WorkError(f"{self.spec.name}: its process is closed, or was interrupted; start it again")
        message = (function, tuple(map(self._sender.pack, args)), kwargs)
        self._waiting = True
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None
        result: T = self._receive()
        return result

    def _receive(self) -> Any:
        try:
            word, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        except OSError as error:
            raise WorkError(f"{self.spec.name}: its process is closed ({error}); start it again") from error
        self._waiting = False
        if word == "error":
            raise value
        if word == "failed":
            raise WorkError(f"{self.spec.name} failed in its process: {value}")
        return value

    def _died(self) -> WorkError:
        return WorkError(f"{self.spec.name}: {self._child.wait(CLOSING_S).reason}")

    def close(self) -> None:
        """End the process; one that is in the middle of a call is killed."""
        if self._pipe.closed:
            return
        if self._waiting:
            self._child.kill()
        with suppress(OSError):  # it is gone
            self._pipe.send(None)
        self._pipe.close()
        self._child.wait(CLOSING_S)


def start_host(spec: Spec, *, isolated: bool, others: Mapping[str, Host] | None = None) -> Host:
    """Start a contestant; return before it is loaded where it gets a process of its own.

    Args:
        spec: of the contestant.
        isolated: whether it gets a process of its own.
        others: the hosts so far, by name: other forms of the separate engines run those that are loaded already.

    Raises:
        MtlError: it cannot be started.
    """
    if isolated:
        return ProcessHost(spec)
    separate = (others or {}).get(SEPARATE)
    shares = spec.kind in (CONCURRENT, ONE_GRAPH) and isinstance(separate, LocalHost)
    if shares and isinstance(separate, LocalHost) and separate.spec.artifacts == spec.artifacts:
        return LocalHost(spec, separate)
    return LocalHost(spec)
