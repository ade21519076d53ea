"""Arrays in ``.npy`` and ``.npz`` files that somebody else wrote: no objects, which are pickles, and no more data than expected."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.signals import handlers_error

from .reading import DocumentError, describe, open_file, shown

Array = npt.NDArray[Any]

MOST_BYTES = 4 << 30
"""Bytes of all arrays that are read from one archive, unpacked."""
_MANY = 10_000  # files in an archive


def read_archive(
    source: bytes | str | os.PathLike[str], wanted: Collection[str], most: int = MOST_BYTES
) -> tuple[dict[str, Array], list[str]]:
    """Read some arrays of an ``.npz`` file.

    Args:
        source: the file's path, or its content.
        wanted: names of arrays; those that the file lacks are left out.
        most: bytes of these arrays, unpacked.

    Returns:
        the arrays by name, and the names of the others, sorted.

    Raises:
        DocumentError: the file is damaged, is no archive of arrays, or holds more.
        OSError: it cannot be read, or is no regular file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return _read(archive, wanted, most)
        except DocumentError:
            raise
        except Exception as error:  # a damaged file fails anywhere in zipfile, zlib and numpy's parser
            if (raised := handlers_error(error)) is not None:
                raise raised from raised.__cause__
            raise DocumentError(f"cannot be read as arrays ({describe(error)})") from error


def _read(archive: zipfile.ZipFile, wanted: Collection[str], most: int) -> tuple[dict[str, Array], list[str]]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) > _MANY:
        raise DocumentError(f"an archive of {len(members)} files")
    chosen = {name: info for name, info in members.items() if name in wanted}
    if (size := sum(info.file_size for info in chosen.values())) > most:
        raise DocumentError(f"its arrays take {size >> 20} MiB unpacked; at most {most >> 20} MiB are read")
    arrays = {}
    for name, info in chosen.items():
        try:
            arrays[name] = _parsed(io.BytesIO(archive.read(info)))  # no more than the size that it states
        except DocumentError as error:  # noqa: PERF203 - to say which
            raise DocumentError(f"array {shown(name)}: {error.problem}") from error
    return arrays, sorted(set(members) - set(chosen))


def _parsed(stream: BinaryIO) -> Array:
    if stream.read(6) != b"\x93NUMPY":  # np.load would take anything else for a pickle or an archive
        raise DocumentError("not an array in numpy's format")
    stream.seek(0)
    found: Array = np.lib.format.read_array(stream, allow_pickle=False)
    if found.dtype.kind == "U" and found.size:
        numbers = np.ascontiguousarray(found).reshape(-1).view(np.dtype("u4").newbyteorder(found.dtype.byteorder))
        if numbers.size and int(numbers.max()) > sys.maxunicode:
            raise DocumentError("text with invalid characters")
    return found


def map_array(file: Path) -> Array:
    """Return the array in an ``.npy`` file, memory-mapped rather than read.

    Raises:
        DocumentError: the file is damaged or holds no plain array.
        OSError: it cannot be read, or is no regular file.
    """
    with open_file(file) as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise DocumentError("not an array in numpy's format")
    try:
        found: Array = np.lib.format.open_memmap(file, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header fails anywhere in numpy's parser
        if (raised := handlers_error(error)) is not None:
            raise raised from raised.__cause__
        raise DocumentError(f"cannot be read as an array ({describe(error)})") from error
    return found


def read_array(file: Path, most: int = 1 << 30) -> Array:
    """Return the array in an ``.npy`` file.

    Raises:
        DocumentError: the file is damaged, holds no plain array, or one of more bytes.
        OSError: it cannot be read, or is no regular file.
    """
    mapped = map_array(file)
    if mapped.nbytes > most:
        raise DocumentError(f"an array of {mapped.nbytes >> 20} MiB; at most {most >> 20} MiB are read")
    return np.array(mapped)
