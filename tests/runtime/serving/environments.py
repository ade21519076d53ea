"""Virtual environments for engines whose packages are not in the dev extra; our package in them is that of this checkout."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
_MADE = "made"


class CannotBeMadeError(Exception):
    """What is needed cannot be had here; the message says why."""


def make(place: Path, needed: Sequence[str], more: Callable[[], None] = lambda: None) -> Path:
    """Make a folder with an environment, unless it is there, and return its interpreter.

    Args:
        place: the folder, which git ignores.
        needed: packages.
        more: what else is made.

    Raises:
        CannotBeMadeError: the packages cannot be had.
    """
    place.mkdir(exist_ok=True)
    python = place / "env" / "bin" / "python"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = "\n".join(needed)
        if not (place / _MADE).is_file() or (place / _MADE).read_text() != made:
            shutil.rmtree(place / "env", ignore_errors=True)
            run([sys.executable, "-m", "venv", str(place / "env")])
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run([*pip, *needed, "setuptools>=77"])
            run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
            more()
            (place / _MADE).write_text(made)
    return python


def run(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        CannotBeMadeError: it failed.
    """
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line.strip()] or [f"exit code {ended.returncode}"]
        raise CannotBeMadeError(f"{' '.join(command[1:4])}: {lines[-1]}")
