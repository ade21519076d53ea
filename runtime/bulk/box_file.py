"""Boxes of many images from a file, such as a detector's: JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.errors import MtlWarning, OptionError
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_text, shown

from .predicting import Box

_HEADER = ("image", "x", "y", "width", "height")
_FORM = 'JSON lines, {"image": "a.jpg", "boxes": [[x, y, width, height], ...]}, or CSV with the header image,x,y,width,height'


class UnusedBoxesWarning(MtlWarning):
    """A file has boxes of images that are not predicted."""


def boxes_by_file(path: Path, files: Sequence[Path]) -> Callable[[Path], Sequence[Box]]:
    """Read boxes and return a function that gives those of an image; there may be none.

    Args:
        path: a file of JSON lines (``{"image": ..., "boxes": [[x, y, width, height], ...]}``; an image may have several lines), or
            of CSV where its suffix is ``.csv`` (``image,x,y,width,height``). Images are named from the file's own folder, or
            from the current one.
        files: that are predicted.

    Raises:
        OptionError: the file cannot be read, or names none of the images.
    """
    named: dict[str, list[Box]] = {}
    try:
        text = read_text(path)
        rows = _of_csv(text) if path.suffix.lower() == ".csv" else _of_json(text)
        for image, boxes in rows:
            named.setdefault(image, []).extend(boxes)
    except DocumentError as error:
        raise OptionError(f"--boxes {path}: {error}; the form is {_FORM}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"--boxes {path}: {describe(error)}") from error
    known = {os.path.realpath(file) for file in files}
    found: dict[str, list[Box]] = {}
    unused = []
    for image, boxes in named.items():
        places = [os.path.realpath(base / image) for base in (path.parent, Path())]
        place = next((one for one in places if one in known), None)
        if place is None:
            unused.append(image)
        else:
            found.setdefault(place, []).extend(boxes)
    if unused and not found:
        raise OptionError(f"--boxes {path}: it names none of the images; it names {unused[0]}, from its own folder")
    if unused:
        count = f"{len(unused)} image{'s' if len(unused) > 1 else ''}"
        warnings.warn(
            f"--boxes {path}: it also names {count} beside those that are predicted, such as {unused[0]}",
            UnusedBoxesWarning,
            stacklevel=2,
        )
    return lambda file: found.get(os.path.realpath(file), [])


def _of_json(text: str) -> Iterator[tuple[str, list[Box]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except DocumentError as error:
            raise DocumentError(f"line {number}: {error.problem}") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise DocumentError(f"line {number}: an object with the name of an image is expected")
        boxes = entry.get("boxes")
        if not isinstance(boxes, list):
            raise DocumentError(f"line {number}: boxes is {shown(boxes)}")
        yield entry["image"], [_box(number, box) for box in boxes]


def _of_csv(text: str) -> Iterator[tuple[str, list[Box]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in _HEADER if name not in (reader.fieldnames or ())]:
        raise DocumentError(f"no column {missing[0]}")
    for row in reader:
        yield row["image"], [_box(reader.line_num, [row[name] for name in _HEADER[1:]])]


def _box(line: int, values: Any) -> Box:
    try:
        box = tuple(map(float, _four(values)))
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise DocumentError(f"line {line}: a box is four numbers, of which width and height are above 0")
    return box


def _four(values: Any) -> Iterable[Any]:
    return () if isinstance(values, str) else values
