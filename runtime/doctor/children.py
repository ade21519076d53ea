"""Work that may end its process, done in another one: an import of a broken library must not take the report with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_BEGIN = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from {} import main; main()"


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        lines: what it printed to standard output.
        fault: how it failed, for people; None where it ended as it should.
    """

    lines: tuple[str, ...]
    fault: str | None


def run(module: str, arguments: Sequence[str], timeout_s: float) -> Ended:
    """Run a module's ``main()`` in a process of its own, with this process's ``sys.path`` alone.

    Args:
        module: its full name.
        arguments: what ``sys.argv[1:]`` is in it.
        timeout_s: seconds after which it is ended.
    """
    command = [sys.executable, "-c", _BEGIN.format(module), "\n".join(sys.path), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as late:
        return Ended(_lines(late.stdout), f"gave no answer in {timeout_s:.0f} s")
    return Ended(_lines(done.stdout), None if done.returncode == 0 else _fault(done.returncode, _lines(done.stderr)))


def _lines(output: bytes | None) -> tuple[str, ...]:
    return tuple((output or b"").decode(errors="replace").splitlines())


def _fault(code: int, errors: tuple[str, ...]) -> str:
    if code < 0:
        names = {one.value: one.name for one in signal.Signals}
        return f"ended its process ({names.get(-code, f'signal {-code}')})"
    last = next((line.strip() for line in reversed(errors) if line.strip()), "")
    return f"ended its process (exit code {code}{f': {last}' if last else ''})"
