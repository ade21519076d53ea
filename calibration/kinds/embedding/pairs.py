"""Pairs of images that show the same or not: read from a file ``a,b,same``, and kept so that any of the images can be left out."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.files.reading import describe, read_bytes

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

HEADER = ("a", "b", "same")
_SAME = {"1": 1, "true": 1, "yes": 1, "same": 1, "0": 0, "false": 0, "no": 0, "different": 0, "-1": 0}
_MOST = 1 << 24  # pairs


@dataclass(frozen=True)
class Pairs:
    """Pairs among some images. Images keep their numbers, and pairs their order, when a part of the images is taken.

    Attributes:
        images: ``(N,)``: the number of each image.
        pairs: ``(P, 3)``: numbers of two images, and 1 where they show the same, else 0. Those of other images may be among them.
    """

    images: Whole
    pairs: Whole

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @cached_property
    def present(self) -> Whole:
        """``(Q,)``: positions of the pairs whose images are both here."""
        inside = np.isin(self.pairs[:, :2], self.images).all(axis=1)
        return np.flatnonzero(inside)

    @cached_property
    def width(self) -> int:
        """How many pairs begin with one image at most."""
        counts = np.unique(self.pairs[:, 0], return_counts=True)[1]
        return int(counts.max(initial=0))

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images are in a pair that is here."""
        return np.isin(self.images, self.pairs[self.present, :2])

    @property
    def digest(self) -> str:
        """SHA-256 of the images' numbers and the pairs."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.ascontiguousarray(self.pairs).tobytes())
        return digest.hexdigest()

    def part(self, positions: npt.NDArray[np.intp]) -> Pairs:
        """Return the pairs among some of the images."""
        return replace(self, images=self.images[positions])

    def read(self, position: int) -> Floats | None:
        """Return the pairs that begin with an image; None where it is in no pair.

        Returns:
            ``(1 + 3 * width,)``: the image's number; then of each pair the other image's number, whether they show the same, and
            the pair's position in the list; NaN behind the last one.
        """
        number = self.images[position]
        if not self.known[position]:
            return None
        row = np.full((self.width, 3), np.nan)
        begun = self.present[self.pairs[self.present, 0] == number]
        row[: len(begun)] = np.column_stack([self.pairs[begun, 1:], begun])
        return np.concatenate([[float(number)], row.ravel()])


def read_pairs(file: Path, images: Sequence[Path], roots: Sequence[Path]) -> tuple[Pairs, tuple[str, ...]]:
    """Read a CSV file with a line ``a,b,same`` and one line per pair.

    Args:
        file: in UTF-8. ``a`` and ``b`` are paths below one of the roots, absolute paths, or bare names that only one image has;
            ``same`` is 1 or 0, true or false, yes or no.
        images: paths of all images.
        roots: folders that names are relative to.

    Returns:
        the pairs, and a warning where lines name images that are not there.

    Raises:
        OptionError: the file cannot be read, a line has another form, or no pair has both of its images.
    """
    lines = _lines(file)
    numbers = _Numbers(images, roots)
    pairs: list[tuple[int, int, int]] = []
    absent: list[str] = []
    for line, (a, b, same) in lines:
        if (said := _SAME.get(same.lower())) is None:
            raise OptionError(f"{file}: line {line}: same is {same!r}; write 1 where a and b show the same, else 0")
        found = [numbers.get(name) for name in (a, b)]
        if a == b or (found[0] is not None and found[0] == found[1]):
            raise OptionError(f"{file}: line {line}: {a} is paired with itself")
        if found[0] is None or found[1] is None:
            absent.append(a if found[0] is None else b)
            continue
        pairs.append((found[0], found[1], said))
    if not pairs:
        raise OptionError(f"{file}: none of its {len(lines)} pairs has both images; the first lacks {absent[0]!r}")
    warnings = []
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        warnings.append(f"{file.name}: {len(absent)} of {len(lines)} pairs lack an image ({shown})")
    return Pairs(np.arange(len(images)), checked(pairs, str(file))), tuple(warnings)


def checked(pairs: Sequence[tuple[int, int, int]] | Whole, where: str) -> Whole:
    """Return pairs ``(P, 3)`` of which some show the same and some do not.

    Raises:
        OptionError: all are alike.
    """
    found = np.asarray(pairs, np.int64).reshape(-1, 3)
    if len(np.unique(found[:, 2])) < 2:
        word = "the same" if found[0, 2] else "different things"
        raise OptionError(f"{where}: all {len(found)} pairs show {word}; verification needs pairs of both sorts")
    return found


def array_pairs(array: npt.NDArray[np.generic], where: str) -> Whole:
    """Return pairs that come as an array ``(P, 3)``: positions of two images, and 1 or 0.

    Raises:
        ImageError: it has another shape, type or values.
    """
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "biu" or not len(array):
        raise ImageError(
            f"{where}: {array.dtype} of shape {array.shape}; pairs are whole numbers (P, 3): the positions of two images in "
            "'images', and 1 where they show the same, else 0"
        )
    found = array.astype(np.int64)
    if found[:, :2].min() < 0 or not np.isin(found[:, 2], (0, 1)).all():
        raise ImageError(f"{where}: positions are from 0 on, and the third column is 0 or 1")
    if (found[:, 0] == found[:, 1]).any():
        raise ImageError(f"{where}: an image is paired with itself")
    return found


class _Numbers:
    """Images by the names that a file may give them."""

    def __init__(self, images: Sequence[Path], roots: Sequence[Path]) -> None:
        self._by_name: dict[str, int | None] = {}
        for number, path in enumerate(images):
            names = {str(path), str(path.absolute()), path.name}
            names |= {path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)}
            for name in names:
                taken = name in self._by_name
                self._by_name[name] = None if taken else number  # a name that several have stands for none

    def get(self, name: str) -> int | None:
        return self._by_name.get(name, self._by_name.get(name.replace("\\", "/")))


def _lines(file: Path) -> list[tuple[int, tuple[str, str, str]]]:
    try:
        text = read_bytes(file, None).decode("utf-8-sig")
    except OSError as error:
        raise OptionError(
            f"{file}: {describe(error)}; give a CSV file with a line a,b,same and one line per pair"
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{file}: not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from error
    first = text.splitlines()[0] if text.strip() else ""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise OptionError(f"{file}: line {reader.line_num} is not CSV ({error})") from error
    if not rows or [cell.lower() for cell in rows[0][1]] != list(HEADER) or len(rows) < 2:
        shown = ",".join(rows[0][1]) if rows else "nothing"
        raise OptionError(
            f"{file}: begins with {shown[:80]!r}; pairs need a first line a,b,same, then one line per pair"
        )
    if len(rows) > _MOST:
        raise OptionError(f"{file}: {len(rows) - 1} pairs are too many; at most {_MOST}")
    found = []
    for number, row in rows[1:]:
        if len(row) != 3:
            raise OptionError(f"{file}: line {number} has {len(row)} cells; a pair has three: a, b and same")
        found.append((number, (row[0], row[1], row[2])))
    return found
