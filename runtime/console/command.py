"""What all commands share: errors as one line, exit codes, progress on standard error, tables as plain text."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mtl_deploy import __version__
from mtl_deploy.runtime.errors import MtlError, MtlWarning

from .completion import script
from .help import HelpFormatter
from .interrupts import noting
from .progress import Progress
from .visible import visible, visible_output

__all__ = ["INTERRUPTED", "Progress", "is_number", "parser", "run_command", "table"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_NUMBER = re.compile(r"[-+~]?\d[\d.,]*(e[-+]?\d+)?( [^\s\d]+)*")


def parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with what every command has: ``--version``, ``--print-completion`` and examples in its help."""
    made = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog, formatter_class=HelpFormatter)
    made.add_argument("--version", action="version", version=f"{prog} {__version__}")
    made.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        action=_Completion,
        help="print a completion script for the shell, and exit (needs the extra 'completion')",
    )
    return made


class _Completion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's signature
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        print(script(parser, str(values)))  # noqa: T201
        parser.exit(0)


def run_command(command: Callable[[], int]) -> int:
    """Run a command's body and turn what it raises into an exit code.

    A :class:`~mtl_deploy.runtime.errors.MtlError` becomes one line on standard error and its own exit code. Ctrl-C becomes 130, a
    termination 143, a terminal that goes away 129 (128 + the signal's number), once the command has tidied up. A reader that goes
    away (``| head``) changes neither the work nor the exit code. Anything else is a bug and keeps its traceback. Control characters
    in the output are printed visibly, see :mod:`~mtl_deploy.runtime.console.visible`.
    """
    interrupts: list[int] = []
    with visible_output(), noting(interrupts), warnings.catch_warnings():
        warnings.simplefilter("always", MtlWarning)
        warnings.showwarning = _one_line(warnings.showwarning)
        try:
            code = command()
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            # a library may turn the interrupt into its own error
            if interrupts or isinstance(error, KeyboardInterrupt):
                _say("interrupted")
                return 128 + interrupts[0] if interrupts else INTERRUPTED
            if isinstance(error, MtlError):
                _say(f"error: {' '.join(str(error).split())}")
                return error.exit_code
            raise
    return 128 + interrupts[0] if interrupts and code == INTERRUPTED else code


def _say(line: str) -> None:
    """Print a line on standard error, if it is still there: after SIGHUP it is not."""
    with suppress(OSError):
        print(line, file=sys.stderr)  # noqa: T201


def _one_line(usual: Callable[..., None]) -> Callable[..., None]:
    """Return a function that shows warnings: ours as one line, without the line of code that they came from."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if not issubclass(category, MtlWarning):
            usual(message, category, *rest, **named)
            return
        _say(f"warning: {' '.join(str(message).split())}")

    return show


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain-text table: columns whose cells look like numbers are right-aligned, the others left-aligned."""
    cells = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(len(str(row[i])) for row in [columns, *cells]) for i in range(len(columns))]
    right = [bool(cells) and all(is_number(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        parts = (
            str(cell).rjust(width) if to_right else str(cell).ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), "  ".join("-" * width for width in widths), *map(line, cells)])


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with or without a unit after a space."""
    return not cell or cell == "n/a" or _NUMBER.fullmatch(cell) is not None
