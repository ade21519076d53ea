"""Running a command of this package in a process of its own: what it needs is not this room's to import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from mtl_deploy.runtime.errors import BackendError, WorkError

_RUN = "import importlib, sys; sys.exit(importlib.import_module(sys.argv.pop(1)).main())"


def run_tool(module: str, arguments: Sequence[str], purpose: str) -> None:
    """Run the ``main`` of a module and wait for its end.

    Args:
        module: of this package; its ``main()`` reads the command line and returns an exit code.
        arguments: its own.
        purpose: what it is run for, at the start of an error: ``the engines were not built``.

    Raises:
        BackendError: it lacks a library or cannot use its input (its exit code is 2); with its own words.
        WorkError: the work itself failed, or its process died.
    """
    command = [sys.executable, "-c", _RUN, module, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode == 0:
        return
    lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    message = f"{purpose}: {lines[-1].removeprefix('error: ')}"
    raise BackendError(message) if result.returncode == BackendError.exit_code else WorkError(message)
