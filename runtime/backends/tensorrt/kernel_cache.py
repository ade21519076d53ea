"""TensorRT-RTX's compiled kernels, kept on disk so that the next start does not compile them again."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.files.reading import read_bytes


def cache_path(engine: str, chosen: str | os.PathLike[str] | bool | None) -> Path | None:
    """Return the cache's file: beside the engine, or the chosen one; None where ``chosen`` is False."""
    if chosen is False:
        return None
    return Path(f"{engine}.cache") if chosen is None or chosen is True else Path(os.fspath(chosen))


def read_cache(file: Path | None) -> bytes | None:
    """Return a cache's content; None where there is none yet."""
    try:
        return None if file is None else read_bytes(file)
    except OSError:
        return None


class KernelCache:
    """A cache in use.

    Args:
        file: to write to; None: nowhere.
        cache: the library's object.
    """

    def __init__(self, file: Path | None, cache: Any) -> None:
        self._file = file
        self._cache = cache

    def save(self) -> None:
        """Write newly compiled kernels, whole or not at all. A read-only folder or a full disk is no error."""
        content = self._cache.serialize()
        if self._file is None or content is None or not content.nbytes:
            return
        with suppress(OSError):
            if read_cache(self._file) == bytes(memoryview(content)):
                return
            descriptor, name = tempfile.mkstemp(prefix=f".{self._file.name}.", dir=self._file.parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(memoryview(content))
                Path(name).replace(self._file)
            except OSError:
                Path(name).unlink()
                raise
