"""A CSV file as a table program wrote it: what separates its cells."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.reading import describe

from .names import read_names

_SAID = re.compile(r'("?)sep=([^\r\n"]?)\1\r?\n', re.IGNORECASE)  # Excel's, as the first line
_BLANK = re.compile(r"(?:[ \t]*\r?\n)*")
_LINE = re.compile(r'(?:"[^"]*"|[^"\r\n])*')  # the first one, whose quoted cells may hold line ends
_QUOTED = re.compile(r'"[^"]*"')


def read_csv(file: Path) -> tuple[list[str], list[list[str]], list[int], bool]:
    """Return the columns' names, the lines after them, these lines' numbers, and whether a comma in a number is a decimal one.

    Raises:
        OptionError: the file cannot be read, is no CSV, holds no line of cells, or has lines of several lengths.
    """
    try:
        text = read_names(file)
    except OSError as error:
        raise OptionError(
            f"{file}: {describe(error)}; give a CSV file with a column file and one column per task"
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{file}: not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from error
    delimiter, start = _separator(text)
    before = text.count("\n", 0, start)
    lines = io.StringIO(text[start:], newline="")  # cells may hold what splitlines() takes for line ends
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        cells = [
            ([cell.strip() for cell in row], before + reader.line_num) for row in reader if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise OptionError(f"{file}: line {before + reader.line_num} is not CSV ({error})") from error
    if len(cells) < 2:
        raise OptionError(
            f"{file}: holds no labels; write a line of column names (file and the tasks), then one line per image"
        )
    titles = cells[0][0]
    while not titles[-1]:  # separators at the end
        titles.pop()
    for row, line in cells:
        while len(row) > len(titles) and not row[-1]:
            row.pop()
        if len(row) != len(titles):
            held = "1 cell" if len(row) == 1 else f"{len(row)} cells"
            raise OptionError(
                f"{file}: line {line} has {held}, the line of column names {len(titles)}; the separator is {delimiter!r}"
            )
    return titles, [row for row, _ in cells[1:]], [line for _, line in cells[1:]], delimiter != ","


def _separator(text: str) -> tuple[str, int]:
    """Return the character between the cells of a CSV file, and where its first line of cells begins.

    The character is what a first line ``sep=;`` says, quoted or not, otherwise the most frequent of comma, semicolon and tab in the
    line of column names, outside quotes.

    Args:
        text: of the file.
    """
    said = _SAID.match(text)
    if said is not None and said[2]:
        return said[2], said.end()
    blank = _BLANK.match(text, said.end() if said is not None else 0)
    start = blank.end() if blank is not None else 0
    line = _LINE.match(text, start)
    titles = _QUOTED.sub("", line[0]) if line is not None else ""
    return max(",;\t", key=titles.count), start
