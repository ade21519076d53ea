"""Compiled graphs on disk, so that the next start need not compile them again.

What is read runs, so a file counts only if nobody but this user, the superuser or the owner of its folder can have written it,
and a folder only if it is one itself: a bundle that was unpacked may have a link in its place. Each file says what it was compiled
from and for, and has a checksum; whatever does not fit is as if it were not there. Nothing here ever fails a load.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = ".cache"
"""The folder's name in a bundle."""
MOST_FILES = 8
"""Files of a folder; where there are more, the oldest ones are removed."""
_MAGIC = b"mtl-deploy: a graph compiled by OpenVINO, 1\n"
_PREFIX, _SUFFIX = "openvino-", ".blob"
_DIGEST = 64  # hexadecimal digits of a SHA-256
_MOST_BYTES = 4 << 30


class CompiledCache:
    """Compiled graphs in a folder.

    Args:
        folder: is made when something is first kept; None: nothing is kept or found.
        about: what all of its entries depend on: the library and the processor.
    """

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._folder = folder if os.open in os.supports_dir_fd else None
        self._about = about

    @property
    def used(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def key(self, content: bytes, **rest: Any) -> str:
        """Return the key of a graph that is compiled in a certain way.

        Args:
            content: the ``.onnx`` file.
            rest: all else that the compiled graph depends on.
        """
        graph = hashlib.sha256(content).hexdigest()
        what = json.dumps({"graph": graph, **self._about, **rest}, sort_keys=True, default=str)
        return hashlib.sha256(what.encode()).hexdigest()

    def read(self, key: str) -> bytes | None:
        """Return what was kept under a key; None where there is nothing that can be used."""
        with suppress(OSError), self._opened() as folder:
            number = os.open(_name(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(number, "rb") as stream:
                found = os.fstat(number)
                if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES or not _is_own(found, folder):
                    return None
                head = stream.read(len(_MAGIC) + 2 * _DIGEST)
                if head[: len(_MAGIC) + _DIGEST] != _MAGIC + key.encode():
                    return None
                content = stream.read()
            return content if hashlib.sha256(content).hexdigest().encode() == head[-_DIGEST:] else None
        return None

    def keep(self, key: str, content: bytes) -> None:
        """Keep something under a key, whole or not at all. A read-only folder or a full disk is no error."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o755)
        name = _name(key)
        beside = f".{name}.{os.getpid()}.partial"
        with suppress(OSError), self._opened() as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            number = os.open(beside, flags, 0o644, dir_fd=folder)
            try:
                with os.fdopen(number, "wb") as stream:
                    stream.write(_MAGIC + key.encode() + hashlib.sha256(content).hexdigest().encode())
                    stream.write(content)
                os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(beside, dir_fd=folder)
                raise
            _tidy(folder, name)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the folder's descriptor: what happens to its path meanwhile changes nothing.

        Raises:
            OSError: there is none, it is a link, or others may write to it.
        """
        if self._folder is None:
            raise FileNotFoundError
        number = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(number).st_mode & stat.S_IWOTH:
                raise PermissionError
            yield number
        finally:
            os.close(number)


def _name(key: str) -> str:
    return f"{_PREFIX}{key[:32]}{_SUFFIX}"


def _is_own(file: os.stat_result, folder: int) -> bool:
    owners = (0, os.geteuid(), os.fstat(folder).st_uid)
    return file.st_uid in owners and not file.st_mode & stat.S_IWOTH


def _tidy(folder: int, newest: str) -> None:
    """Remove the oldest of too many files; of those in the folder, only such as were made here."""
    with os.scandir(folder) as entries:
        found = [
            (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
            for entry in entries
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX) and entry.name != newest
        ]
    for _, name in sorted(found, reverse=True)[MOST_FILES - 1 :]:
        os.unlink(name, dir_fd=folder)
