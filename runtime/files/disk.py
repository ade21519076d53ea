"""All changes to the file system that writing a bundle makes: one function per kind of call, and a hook before each call.

Renames come in two kinds that cannot race: one that never replaces anything, and one that exchanges two entries (Linux's
``renameat2`` with ``RENAME_NOREPLACE`` and ``RENAME_EXCHANGE``, see its manual page).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.signals import unfinished

before: Callable[[str, Path], None] | None = None
"""Called before each change with its kind and its path; None except in tests, which end the process there or note the order."""

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_FICLONE = 0x40049409  # ioctl_ficlone(2): share the blocks until one of the two files is written
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_NO_FLAGS = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # of a kernel or file system without renameat2's flags
_BLOCK = 1 << 20


def make_folder(folder: Path) -> None:
    """Make a folder; its parent exists, the folder itself does not."""
    _step("mkdir", folder)
    folder.mkdir()


def open_or_make(file: Path) -> int:
    """Open a file for reading and writing, creating an empty one where there is none; return its descriptor."""
    _step("create", file)
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)


def write_new(file: Path, content: bytes, sha: hashlib._Hash | None = None) -> None:
    """Write a file that does not exist yet. It is durable once it and its folder are synced (:func:`sync`).

    Args:
        file: its path.
        content: its bytes.
        sha: is given each block as it is written, so that nothing is read again to be hashed.

    Raises:
        FileExistsError: it does.
    """
    _step("create", file)
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        view = memoryview(content)
        size = min(
            _BLOCK, -(-len(view) // 2)
        )  # two writes at least, so that a file is half written at one of the steps
        while view:
            _step("write", file)
            written = os.write(number, view[:size])
            if sha is not None:
                sha.update(view[:written])
            view = view[written:]
    finally:
        os.close(number)


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file's content, whole or not at all, and wait until it is on the disk. A link stays a link."""
    real = Path(os.path.realpath(file))
    beside = real.with_name(f".{real.name}.{os.getpid()}.partial")
    with unfinished(beside):
        try:
            write_new(beside, content)
            sync(beside)
            rename(beside, real)
        except BaseException:
            with suppress(OSError):
                remove(beside)
            raise


def copy(source: Path, target: Path) -> str | None:
    """Copy a regular file with its mode and times to a free path; as a reflink where the file system supports that.

    Returns:
        the SHA-256 of what was written, in hexadecimal; None for a reflink, which writes nothing.

    Raises:
        FileExistsError: there is something at the target.
    """
    _step("copy", target)
    sha = None
    with source.open("rb") as read:
        number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(number, "wb") as written:
            if not _clone(read.fileno(), written.fileno()):
                sha = hashlib.sha256()
                while block := read.read(_BLOCK):
                    written.write(block)
                    sha.update(block)
    shutil.copystat(source, target)
    return None if sha is None else sha.hexdigest()


def link(source: Path, target: Path) -> None:
    """Give a file a second name, a hard link."""
    _step("link", target)
    os.link(source, target)


def symlink(leads_to: str, place: Path) -> None:
    """Make a symbolic link."""
    _step("symlink", place)
    place.symlink_to(leads_to)


def remove(file: Path) -> None:
    """Remove a file's name where there is one."""
    _step("unlink", file)
    file.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove an empty folder.

    Raises:
        OSError: it is not empty.
    """
    _step("rmdir", folder)
    folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, as far as possible; links are removed, not followed."""
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                with suppress(OSError):
                    remove(entry)
        remove_folder(folder)


def rename(source: Path, target: Path) -> None:
    """Rename a file over another one, in one step."""
    _step("rename", target)
    source.replace(target)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or folder, in one step, to a free path.

    Raises:
        FileExistsError: there is something. (Where the system has no such call, a folder replaces an empty folder.)
    """
    _step("rename_new", target)
    try:
        _renameat2(source, target, _NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        if source.is_dir():
            _rename_folder(source, target)
        else:
            _rename_file(source, target)


def exchange(one: Path, other: Path) -> None:
    """Exchange two entries of one file system, in one step: at no time is there nothing at either path.

    Raises:
        OSError: one of :data:`NOT_EXCHANGED`: a mount point, a folder of an image's layer, or a system without the call.
    """
    _step("exchange", other)
    _renameat2(one, other, _EXCHANGE)


NOT_EXCHANGED = frozenset((*_NO_FLAGS, errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES))
"""Numbers of the errors that mean: the folder itself cannot be exchanged, but its contents may be changed."""


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's entries are on the disk (fsync); skip folders on systems that cannot sync them.

    Raises:
        OSError: it is neither a file nor a folder, or the disk fails.
    """
    _step("sync", path)
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # must not wait, should it be a pipe
    try:
        os.fsync(number)
    except OSError as error:
        folder = stat.S_ISDIR(os.fstat(number).st_mode)
        if not (folder and error.errno in (errno.EINVAL, errno.EBADF, errno.ENOTSUP)):
            raise
    finally:
        os.close(number)


def sync_tree(folder: Path) -> None:
    """Sync all files of a folder and below, then the folders."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            sync_tree(entry)
        elif stat.S_ISREG(entry.lstat().st_mode):
            sync(entry)
    sync(folder)


def _step(kind: str, path: Path) -> None:
    if before is not None:
        before(kind, path)


def _clone(source: int, target: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _rename_file(source: Path, target: Path) -> None:
    """Give a file a free name, in one step where the file system has links; FAT has none."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
    else:
        source.unlink()


def _rename_folder(source: Path, target: Path) -> None:
    """POSIX's rename never lets a folder replace anything but an empty folder."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


@cache
def _function() -> Any:
    try:
        found = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return found


def _renameat2(source: Path, target: Path, flag: int) -> None:
    call = _function()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(target))
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))
