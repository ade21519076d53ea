"""Pages of the documentation as what they hold: blocks of code, which tests run."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {"mtl-export": "export", "mtl-calibrate": "calibration", "mtl-infer": "runtime", "mtl-bench": "bench"}


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its title, if it has one, and the code."""

    language: str
    title: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    for language, rest, code in re.findall(r"^```(\w*)([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        title = re.search(r'title="([^"]*)"', rest)
        yield Block(language, title[1] if title else "", code)


def commands_on_path(folder: Path) -> dict[str, str]:
    """Write the project's commands into a folder, and return an environment that finds them and this Python first."""
    folder.mkdir()
    for name, room in COMMANDS.items():
        start = f"import sys; from mtl_deploy.{room}.cli import main; sys.exit(main(sys.argv[1:]))"
        _script(folder / name, f'exec {shlex.quote(sys.executable)} -c "{start}" "$@"')
    _script(folder / "python", f'exec {shlex.quote(sys.executable)} "$@"')
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def _script(file: Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
