"""Starting a module of this package in a process of its own: the one way, for contestants, memory, trials and tools.

The module has a function ``main()``, which reads ``sys.argv[1:]`` and returns an exit code or None. Whatever it is for:

- It finds the modules that this process finds, in the same order; the working directory adds none. The environment is this one's.
- Its standard input is empty. What it and its libraries print goes to files and is read at its end; a result is the last line.
- It has a session of its own, so that a terminal's signals do not reach it. It ends when this process does, however this one ends:
  it holds a pipe that closes then. However it ends, what it started in its session ends with it.
- An :class:`~mtl_deploy.runtime.errors.MtlError` ends it with the error's exit code and a line ``error: ...``.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from mtl_deploy.runtime.errors import BackendError, MtlError, WorkError

CLOSING_S = 10.0
"""What a process has to end by itself before it is killed."""
_ERROR = "error: "
_BEGIN = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from {} import main; main()"


def command_of(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module's ``main()`` in this Python, with this process's ``sys.path`` alone.

    ``python -m`` would look in the working directory first.

    Args:
        module: its full name.
        arguments: what ``sys.argv[1:]`` is in it.
    """
    return [sys.executable, "-c", _BEGIN.format(module), "\n".join(sys.path), *arguments]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; -N where signal N ended it.
        output: what it printed to standard output.
        errors: what it printed to standard error.
        late_s: the time that it had and did not keep, in seconds; None where it ended by itself.
    """

    code: int
    output: str
    errors: str
    late_s: float | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it did its work."""
        return self.code == 0 and self.late_s is None

    @property
    def result(self) -> str:
        """The last line of its standard output: libraries may print before."""
        return _last_line(self.output)

    @property
    def own_words(self) -> str | None:
        """The message of the error of this package that ended it; None where something else did."""
        said = _last_line(self.errors)
        return said.removeprefix(_ERROR) if self.code > 0 and said.startswith(_ERROR) and self.late_s is None else None

    @property
    def reason(self) -> str:
        """Why it did not succeed: its own words, or how it ended and the last line that it printed."""
        if self.late_s is not None:
            return f"its process did not end within {self.late_s:.0f} s"
        if self.own_words is not None:
            return self.own_words
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        said = _last_line(self.errors) or _last_line(self.output)
        return f"its process ended ({how})" + (f": {said}" if said else "")

    def require(self, purpose: str) -> None:
        """Raise where it did not succeed.

        Args:
            purpose: what failed, at the start of the message: ``the engines were not built``.

        Raises:
            BackendError: it lacks a library or cannot use its input (its exit code is 2); in its own words.
            WorkError: the work itself failed, or the process died.
        """
        if self.succeeded:
            return
        unusable = self.own_words is not None and self.code == BackendError.exit_code
        raise (BackendError if unusable else WorkError)(f"{purpose}: {self.reason}")


class Child:
    """A process that runs a module's ``main()``. Making one starts it and returns at once.

    Args:
        module: its full name.
        arguments: what ``sys.argv[1:]`` is in it.
        pass_fds: file descriptors that it inherits, under the same numbers.
    """

    def __init__(self, module: str, arguments: Sequence[str] = (), *, pass_fds: Sequence[int] = ()) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        theirs, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                command_of(__name__, str(theirs), module, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                pass_fds=[theirs, *pass_fds],
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            self._close_files()
            raise
        finally:
            os.close(theirs)
        self._ended: Ended | None = None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> Ended:
        """Wait until it ends, and return how.

        Args:
            timeout_s: the time that it has; it is ended then. None: as long as it takes.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._terminate()
            return self._collect(timeout_s)
        return self._collect()

    def kill(self) -> Ended:
        """End it at once, with what it started."""
        self._kill()
        return self._collect()

    def close(self) -> Ended:
        """Ask it to end, and kill it where it does not; one that ended stays as it is."""
        self._terminate()
        return self._collect()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _terminate(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_S)
            self._kill()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._kill_group()
            self._process.wait()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # empty; or, on macOS, all in it have ended
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group of its own

    def _collect(self, late_s: float | None = None) -> Ended:
        """Return how it ended, which it has, end what it started, and free what it took here."""
        if self._ended is None:
            code = self._process.wait()
            self._kill_group()  # at once: the number is the group's as long as it has a member
            os.close(self._lifeline)
            self._ended = Ended(code, _text(self._output), _text(self._errors), late_s)
            self._close_files()
        return self._ended

    def _close_files(self) -> None:
        self._output.close()
        self._errors.close()


def run(module: str, arguments: Sequence[str] = (), *, timeout_s: float | None = None) -> Ended:
    """Run a module's ``main()`` in a process of its own and wait for its end; where this is interrupted, it is ended.

    Args:
        module: its full name.
        arguments: what ``sys.argv[1:]`` is in it.
        timeout_s: the time that it has; None: as long as it takes.
    """
    with Child(module, arguments) as child:
        return child.wait(timeout_s)


def main() -> None:
    """Be the child: ``sys.argv`` holds the lifeline's file descriptor, the module and its arguments."""
    for name in ("SIGINT", "SIGHUP"):  # the process that started this one says when it ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    lifeline, module = int(sys.argv[1]), sys.argv[2]
    alone = threading.Event()
    threading.Thread(target=_end_with_the_other, args=(lifeline, alone), daemon=True).start()
    sys.argv[:] = [module, *sys.argv[3:]]
    try:
        code = importlib.import_module(module).main()
    except MtlError as error:
        sys.stderr.write(f"{_ERROR}{' '.join(str(error).split())}\n")
        code = error.exit_code
    finally:
        if alone.is_set():  # nobody else ends what this one has started
            os.killpg(0, signal.SIGKILL)
    sys.exit(code)


def _end_with_the_other(lifeline: int, alone: threading.Event) -> None:
    """Wait until the process that started this one is gone, then end this one and what it has started."""
    os.read(lifeline, 1)
    alone.set()
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        os.killpg(0, signal.SIGTERM)  # it tidies up; where it does not, the signal would end it alone
        time.sleep(CLOSING_S)
    os.killpg(0, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
