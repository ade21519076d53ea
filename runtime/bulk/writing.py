"""Files that rows are written to: JSON lines, CSV and Parquet, row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

from .predicting import Outcome
from .rows import NUMBER, Rows

_GROUP = 4096  # rows of a Parquet file that are held until they are written together


class Writer(Protocol):
    """Writes outcomes."""

    def add(self, outcome: Outcome) -> None:
        """Write one."""
        ...

    def finish(self, stopped: str | None = None) -> None:
        """Write what is left.

        Args:
            stopped: why not all images were looked at; None: they were.
        """
        ...


class JsonLines:
    """One JSON object for each image, in a line: ``tasks``, or ``boxes``, or the ``error`` of one that is broken.

    Args:
        out: where to.
        own: whether it is closed at the end.
    """

    def __init__(self, out: TextIO, *, own: bool) -> None:
        self._out, self._own = out, own

    def add(self, outcome: Outcome) -> None:
        """Write one line, at once."""
        text = json.dumps(outcome.to_dict(), ensure_ascii=False, allow_nan=False)
        self._out.write((text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()) + "\n")
        self._out.flush()

    def finish(self, stopped: str | None = None) -> None:  # noqa: ARG002 - a file that is not whole is not kept
        """Close the file."""
        if self._own:
            self._out.close()


class Csv:
    """CSV with a header, UTF-8.

    Args:
        path: of the file.
        rows: make them.
    """

    def __init__(self, path: Path, rows: Rows) -> None:
        self._rows = rows
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, list(rows.columns))
        self._writer.writeheader()

    def add(self, outcome: Outcome) -> None:
        """Write the rows of one image."""
        self._writer.writerows(self._rows.of(outcome))

    def finish(self, stopped: str | None = None) -> None:  # noqa: ARG002 - a file that is not whole is not kept
        """Close the file."""
        self._file.close()


class Parquet:
    """Parquet, by pyarrow (the extra ``parquet``): numbers as doubles, texts as strings.

    Args:
        path: of the file.
        rows: make them.

    Raises:
        OptionError: pyarrow is not installed.
    """

    def __init__(self, path: Path, rows: Rows) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise OptionError(
                "Parquet needs pyarrow: pip install 'mtl-deploy[parquet]'; or write .csv or .jsonl"
            ) from None
        self._arrow, self._rows = pyarrow, rows
        types = {name: pyarrow.float64() if what == NUMBER else pyarrow.string() for name, what in rows.columns.items()}
        self._schema = pyarrow.schema(list(types.items()))
        self._file = pyarrow.parquet.ParquetWriter(str(path), self._schema)
        self._held: list[dict[str, Any]] = []

    def add(self, outcome: Outcome) -> None:
        """Hold the rows of one image, and write many together."""
        self._held += self._rows.of(outcome)
        if len(self._held) >= _GROUP:
            self._write()

    def finish(self, stopped: str | None = None) -> None:  # noqa: ARG002 - a file that is not whole is not kept
        """Write what is left, and the file's end."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        if self._held:
            self._file.write_table(self._arrow.Table.from_pylist(self._held, schema=self._schema))
        self._held = []


def _lines(path: Path, tasks: Sequence[Task], boxed: bool) -> Writer:  # noqa: ARG001 - one form for all
    return JsonLines(path.open("w", encoding="utf-8"), own=True)


def _csv(path: Path, tasks: Sequence[Task], boxed: bool) -> Writer:
    return Csv(path, Rows(tasks, boxed=boxed))


def _parquet(path: Path, tasks: Sequence[Task], boxed: bool) -> Writer:
    return Parquet(path, Rows(tasks, boxed=boxed))


_BY_SUFFIX: dict[str, Callable[[Path, Sequence[Task], bool], Writer]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_BY_SUFFIX)


def check_suffix(path: Path) -> None:
    """Refuse a file whose suffix says no format.

    Raises:
        OptionError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--output {path}: the suffix says the format: {', '.join(SUFFIXES)}; or - for JSON lines")


def writer_of(path: Path, tasks: Sequence[Task], *, boxed: bool) -> Writer:
    """Return what writes a file, by its suffix; see :class:`~mtl_deploy.runtime.bulk.rows.Rows`."""
    return _BY_SUFFIX[path.suffix.lower()](path, tasks, boxed)
