"""Images of a data set in memory, or in a temporary file where there are many: so memory does not grow with their number."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.files.reading import describe

IN_MEMORY = 128 << 20
"""Bytes of all images. More of them are kept in a temporary file; ``TMPDIR`` says where."""

Pixels = npt.NDArray[np.uint8]


class Images(Protocol):
    """``(N, H, W, C) uint8``: an array, or :class:`StoredImages`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        ...

    @property
    def dtype(self) -> Any:
        """``uint8``."""
        ...

    @property
    def size(self) -> int:
        """Number of values."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return one image by its position, an array by a slice, or some of the images by an array of positions."""
        ...


class WritableImages(Images, Protocol):
    """Images while they are read in."""

    def __setitem__(self, key: Any, image: Any, /) -> None:
        """Keep one image."""
        ...


class StoredImages:
    """Images in a temporary file without a name, read when they are asked for.

    Indexing is an array's, with one difference: some images, chosen by an array of positions, are again such an object that reads
    when it is asked, not a copy. A position gives an array ``(H, W, C)``, a slice an array ``(n, H, W, C)``.

    Args:
        shape: ``(N, H, W, C)``; all images are black until they are set.

    Raises:
        WorkError: the file cannot be made, here and in ``__setitem__``, or read; mostly, the disk is full.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._one = shape[1:]
        with self._kept():
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the images
            self._file.truncate(prod(shape))
        self._positions: npt.NDArray[np.intp] = np.arange(shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self._positions), *self._one)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._positions)

    def __iter__(self) -> Iterator[Pixels]:
        """Yield each image."""
        return (self._read(position) for position in self._positions)

    def __getitem__(self, key: Any, /) -> Any:
        """Return one image, an array of those in a slice, or the chosen ones, still in the file."""
        chosen = self._positions[key]
        if isinstance(key, slice):
            found = np.empty((len(chosen), *self._one), np.uint8)
            for place, position in enumerate(chosen):
                found[place] = self._read(position)
            return found
        if chosen.ndim == 0:
            return self._read(chosen)
        part = StoredImages.__new__(StoredImages)
        part._file, part._positions, part._one = self._file, chosen, self._one
        return part

    def __setitem__(self, position: int, image: Pixels, /) -> None:
        """Write one image.

        Raises:
            WorkError: it cannot be written; mostly, the disk is full.
        """
        with self._kept():
            content = memoryview(np.ascontiguousarray(image, np.uint8).reshape(-1).data)
            place = int(self._positions[position]) * prod(self._one)
            while content:
                count = os.pwrite(self._file.fileno(), content, place)
                content, place = content[count:], place + count

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all images as one array."""
        found: npt.NDArray[Any] = self[:].astype(dtype or np.uint8, copy=False)
        return found

    def _read(self, position: Any) -> Pixels:
        image = np.empty(self._one, np.uint8)
        view, place = memoryview(image.reshape(-1).data), int(position) * image.size
        with self._kept():  # each read has its own place in the file: threads may read at once
            while view:
                count = os.preadv(self._file.fileno(), [view], place)
                if not count:
                    raise WorkError(
                        f"{tempfile.gettempdir()}: the temporary file of the images became shorter; run again"
                    )
                view, place = view[count:], place + count
        return image

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Turn what goes wrong with the file into a WorkError."""
        try:
            yield
        except OSError as error:
            folder = tempfile.tempdir or "the folder for temporary files"
            raise WorkError(
                f"{folder}: the images cannot be kept there ({describe(error)}); {prod(self._one) >> 10} KiB per "
                "image are needed: free some space, set TMPDIR to another folder, or use fewer images"
            ) from error


def room_for(shape: tuple[int, ...]) -> WritableImages:
    """Return where to put images ``(N, H, W, C) uint8``: an array, or a temporary file if it would be large."""
    return np.empty(shape, np.uint8) if prod(shape) <= IN_MEMORY else StoredImages(shape)
