"""Help that fits the terminal: descriptions, examples and exit codes are wrapped like the options."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from .width import width

_COMMAND = re.compile(r"  (?=mtl-)")
_COLUMN = re.compile(r"  \S+\s+")  # a name in the first column of a list


class HelpFormatter(argparse.HelpFormatter):
    """argparse's, at the terminal's width, with descriptions and epilogs wrapped by their indentation.

    A line that begins at the margin goes on in the next one that does. An example is a line with two spaces and a command; it
    is never cut but where it is too long, and then as a shell reads it, with a backslash. What explains it has six spaces. A line
    that ends with a colon is a heading.
    """

    def __init__(self, prog: str, *rest: Any, **named: Any) -> None:
        named["width"] = width()
        super().__init__(prog, *rest, **named)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line if line else "" for line in _filled(text, width - len(indent)))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)


def _filled(text: str, wide: int) -> Iterator[str]:
    for paragraph in _paragraphs(text.splitlines()):
        if _COMMAND.match(paragraph):
            yield from _command(paragraph, wide)
        elif (name := _COLUMN.match(paragraph)) and not paragraph.startswith("   "):
            yield from _wrapped(paragraph[name.end() :], wide, name[0], " " * name.end())
        else:
            indent = paragraph[: len(paragraph) - len(paragraph.lstrip())]
            yield from _wrapped(paragraph.strip(), wide, indent, indent) or [""]


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Yield lines that belong together as one: those of the same indentation, at the margin or as an explanation."""
    joined = ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        goes_on = joined and line and not joined.endswith(":") and indent == len(joined) - len(joined.lstrip()) != 2
        if goes_on and not line.startswith("exit codes:"):
            joined = f"{joined} {line.strip()}"
            continue
        if joined:
            yield joined
        joined = line
        if not line:
            yield ""
    if joined:
        yield joined


def _command(line: str, wide: int) -> Iterator[str]:
    """Yield a command, in several lines where it is too long for one; an option stays with its value."""
    pieces: list[str] = []
    for word in re.findall(r"(?:'[^']*'|\"[^\"]*\"|\S)+", line):
        if pieces and pieces[-1].startswith("-") and not word.startswith("-") and " " not in pieces[-1]:
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    shown = f"  {pieces[0]}"
    for position, piece in enumerate(pieces[1:], 1):
        end = "" if position == len(pieces) - 1 else " \\"
        if len(f"{shown} {piece}{end}") > wide:
            yield f"{shown} \\"
            shown = f"    {piece}"
        else:
            shown += f" {piece}"
    yield shown


def _wrapped(text: str, wide: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        max(wide, 20),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
