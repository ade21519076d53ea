"""Images of a data set in memory, or in a temporary file where there are many: so memory does not grow with their number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the images
        self._file.truncate(prod(shape))
        self._positions: npt.NDArray[np.intp] = np.arange(shape[0])
        self._one = shape[1:]

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
        try:
            self._file.seek(int(self._positions[position]) * prod(self._one))
            content = memoryview(np.ascontiguousarray(image, np.uint8).reshape(-1).data)
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise WorkError(
                f"{tempfile.gettempdir()}: the images cannot be kept there ({describe(error)}); {prod(self._one) >> 10} KiB per "
                "image are needed: free some space, set TMPDIR to another folder, or use fewer images"
            ) from error

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all images as one array."""
        found: npt.NDArray[Any] = self[:].astype(dtype or np.uint8, copy=False)
        return found

    def _read(self, position: Any) -> Pixels:
        image = np.empty(self._one, np.uint8)
        self._file.seek(int(position) * image.size)
        view = memoryview(image.reshape(-1).data)
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise WorkError(f"{tempfile.gettempdir()}: the temporary file of the images became shorter; run again")
            view = view[count:]
        return image


def room_for(shape: tuple[int, ...]) -> WritableImages:
    """Return where to put images ``(N, H, W, C) uint8``: an array, or a temporary file if it would be large."""
    return np.empty(shape, np.uint8) if prod(shape) <= IN_MEMORY else StoredImages(shape)
