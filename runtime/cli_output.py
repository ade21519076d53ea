"""What ``mtl-infer`` prints: one row or entry per image as it comes, so that memory does not grow with their number."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mtl_deploy.runtime.bulk.predicting import Outcome
from mtl_deploy.runtime.console.command import is_number, table
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.predictions.decoding import Prediction

JSON_VERSION = 1
_NUMBERS = re.compile(r"\[\n([^\[\]{}\"]*)\]")  # a line break is never inside a text: there it is escaped
_WIDTHS_FROM = 64  # rows that set the columns' widths; later ones are printed one by one


class PredictionTable:
    """A table: the first rows together, as their cells set the widths, the others as they come.

    Args:
        out: where to write.
        names: of the tasks.
    """

    def __init__(self, out: TextIO, names: Sequence[str]) -> None:
        self._out = out
        self._names = list(names)
        self._rows: list[list[str]] = []
        self._widths: list[int] | None = None
        self._right: list[bool] = []

    def add(self, outcome: Outcome) -> None:
        """Print an image's predictions, or a row for each box; one that was left out is named on standard error."""
        if outcome.error is not None:
            return
        if outcome.cut is None:
            self._add(str(outcome.file), outcome.predictions)
            return
        for box, predictions in zip(outcome.cut, outcome.boxes, strict=True):
            self._add(f"{outcome.file} [{','.join(f'{number:g}' for number in box)}]", predictions)

    def _add(self, name: str, predictions: Mapping[str, Prediction]) -> None:
        row = [name, *(str(predictions[name]) for name in self._names)]
        if self._widths is None:
            self._rows.append(row)
            if len(self._rows) == _WIDTHS_FROM:
                self._print_first()
            return
        cells = zip(map(visible, row), self._widths, self._right, strict=True)
        self._out.write(
            "  ".join(cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells).rstrip() + "\n"
        )

    def finish(self, stopped: str | None = None) -> None:  # noqa: ARG002 - standard error names it
        """Print what is left."""
        if self._widths is None:
            self._print_first()
        self._out.flush()

    def _print_first(self) -> None:
        if self._rows:
            text = table(["image", *self._names], self._rows)
            self._widths = [len(dashes) for dashes in text.splitlines()[1].split("  ")]
            self._right = [all(map(is_number, column)) for column in zip(*self._rows, strict=True)]
            self._out.write(text + "\n")
            self._out.flush()
        self._rows = []


class Document:
    """A JSON document, written piece by piece.

    Args:
        out: where to write.
        artifact: path of the artifact that runs; None: a lone graph.
        backend: what runs it.
    """

    def __init__(self, out: TextIO, artifact: str | None, backend: str) -> None:
        self._out = out
        head = _dump({"schema_version": JSON_VERSION, "artifact": artifact, "backend": backend})
        self._out.write(head.removesuffix("\n}") + ',\n  "predictions": [')
        self._count = 0
        self._left_out: TextIO = tempfile.SpooledTemporaryFile(1 << 20, "w+", encoding="utf-8")  # type: ignore[assignment] # noqa: SIM115
        self._left_count = 0

    def add(self, outcome: Outcome) -> None:
        """Write an image's predictions, or note that it has none."""
        entry = outcome.to_dict()
        if outcome.error is None:
            self._add(entry)
            return
        self._left_out.write(_entry({"image": entry["image"], "reason": entry["error"]}, first=not self._left_count))
        self._left_count += 1

    def _add(self, entry: dict[str, Any]) -> None:
        self._out.write(_entry(entry, first=not self._count))
        self._count += 1

    def finish(self, stopped: str | None = None) -> None:
        """Write the rest.

        Args:
            stopped: why not all images were looked at; None: they were.
        """
        self._out.write(f'{_end(self._count)},\n  "left_out": [')
        self._left_out.seek(0)
        while piece := self._left_out.read(1 << 16):
            self._out.write(piece)
        self._left_out.close()
        self._out.write(_end(self._left_count))
        if stopped is not None:
            self._out.write(f',\n  "stopped": {_dump(stopped)}')
        self._out.write("\n}\n")
        self._out.flush()


def _entry(value: dict[str, Any], *, first: bool) -> str:
    return ("" if first else ",") + "\n    " + _dump(value).replace("\n", "\n    ")


def _end(count: int) -> str:
    return "\n  ]" if count else "]"


def _dump(value: Any) -> str:
    """Return JSON for people and programs, with lists of numbers in one line each.

    Halves of surrogate pairs, from file names that are not text, are escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: "[" + ", ".join(part.strip() for part in found[1].split(",")) + "]", text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
