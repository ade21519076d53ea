"""Files of a bundle that are written before the others: beside its place, in a thread, while the work goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from mtl_deploy.runtime.files import disk


class EarlyFiles:
    """A folder of files that wait to be put into a bundle. Each is hashed while it is written, and not read again.

    A context manager: at its end no file is being written any more. Whoever makes it removes the folder.

    Args:
        folder: on the bundle's disk; it is made with the first file.
        errors: a context that failures of the disk are raised in.
    """

    def __init__(self, folder: Path, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._errors = folder, errors
        self._thread = ThreadPoolExecutor(1, "mtl-early-files")
        self._files: dict[str, tuple[Path, Future[str]]] = {}
        self._count = 0

    def __enter__(self) -> EarlyFiles:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the file that is being written."""
        self._thread.shutdown(cancel_futures=True)

    def write(self, path: str, content: bytes) -> None:
        """Begin to write a file; it takes the place of an earlier one of the same path.

        Args:
            path: of the file in the bundle.
            content: its bytes.
        """
        self._count += 1
        file = self._folder / str(self._count)
        self._files[path] = file, self._thread.submit(self._write, file, content)

    def sha256(self, path: str) -> str:
        """Return a file's SHA-256 in hexadecimal, once it is written.

        Raises:
            KeyError: no such file was begun.
            OptionError: the disk is full, or fails.
        """
        with self._errors():
            return self._files[path][1].result()

    def place(self, path: str, folder: Path) -> None:
        """Put a file into the folder that becomes the bundle, once it is written: as a second name where links exist.

        It is copied, and the copy is hashed, where the folder is on another disk, or counts as such, as a mount point does.

        Args:
            path: of the file in the bundle.
            folder: that the bundle is being written to.

        Raises:
            KeyError: no such file was begun.
            OptionError: the disk is full, or fails.
        """
        sha256 = self.sha256(path)
        file, target = self._files[path][0], folder / path
        for parent in reversed(target.parents):
            if parent.is_relative_to(folder) and not parent.exists():
                disk.make_folder(parent)
        try:
            disk.link(file, target)
        except OSError as error:
            if error.errno == errno.EXDEV:
                if disk.copy(file, target) not in (sha256, None):  # None: a reflink, which shares the bytes
                    raise OSError(errno.EIO, "the bytes read are not those written", str(file)) from None
            elif error.errno in disk.NO_LINKS:
                disk.rename_new(file, target)
            else:
                raise

    def _write(self, file: Path, content: bytes) -> str:
        if not self._folder.exists():
            disk.make_folder(self._folder)
        sha = sha256()
        disk.write_new(file, content, sha)
        return sha.hexdigest()
