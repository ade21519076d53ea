"""One writer per target: a lock beside it, a work folder that names its process, and what dead processes left behind.

The lock is ``flock(2)``'s: the kernel frees it when its process ends, however it ends, and it holds between containers that share
a kernel. For what it cannot tell (a process on another host, with a network file system) there is the work folder's name. It holds
the process number, when the process started, and the kernel's boot, so that a reused process number is not mistaken for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError

from . import disk

STAGED = "bundle"  # in a work folder: the bundle that is being written
_MARK = "staged"  # in a work folder: identifies that folder, so that another one in its place is not removed
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})")


@dataclass(frozen=True)
class Owner:
    """Identifies a process, so that no other one is taken for it.

    Attributes:
        pid: its number.
        started: in clock ticks since the kernel's start; 0 where that is not known.
        boot: a digest of the kernel's boot identifier.
        namespace: the namespace of process numbers; 0 where there is none.
        host: a digest of the host's name and identity.
    """

    pid: int
    started: int
    boot: str
    namespace: int
    host: str

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.boot}-{self.namespace}-{self.host}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Parse the result of ``str``; None where it is none."""
        if (found := _NAME.fullmatch(text)) is None:
            return None
        pid, started, boot, namespace, host = found.groups()
        return cls(int(pid), int(started), boot, int(namespace), host)

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        try:
            namespace = Path("/proc/self/ns/pid").stat().st_ino
        except OSError:
            namespace = 0
        host = f"{socket.gethostname()}\n{_text('/etc/machine-id')}"
        pid = os.getpid()
        return cls(pid, _started(pid), _short(_text("/proc/sys/kernel/random/boot_id")), namespace, _short(host))

    def is_dead(self, *, locked: bool) -> bool:
        """Return whether the process has certainly ended.

        Args:
            locked: this process holds the lock that the other one held while it was alive.
        """
        here = Owner.here()
        if self.boot != here.boot:  # another host, or this one before it was rebooted
            return locked and self.host == here.host
        if self.namespace != here.namespace:  # another container on this kernel: its numbers mean nothing here
            return locked
        if self.pid == here.pid and self.started == here.started:
            return locked
        return _started(self.pid) != self.started or not _exists(self.pid)


@dataclass
class Lock:
    """A lock on a target, as a file beside it.

    Attributes:
        file: it; removed when the lock is given back.
        held: whether the file system supports it; otherwise only the work folders tell who is at work.
    """

    file: Path
    held: bool = False
    _number: int | None = field(default=None, repr=False)
    _unsupported: bool = field(default=False, repr=False)

    def take(self, target: Path) -> None:
        """Take the lock.

        Raises:
            OptionError: another process has it.
            OSError: the file cannot be made.
        """
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        while True:
            number = disk.open_or_make(self.file)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _same(number, self.file):  # its holder has removed it meanwhile
                    os.close(number)
                    continue
            except BlockingIOError:
                said = _holder(number)
                os.close(number)
                raise OptionError(
                    f"{target} is being written by another command{said}; wait until it has ended, or choose another place with "
                    "--output"
                ) from None
            except OSError:  # a file system without locks
                os.close(number)
                self._unsupported = True
                return
            except BaseException:
                os.close(number)
                raise
            self._number, self.held = number, True
            os.ftruncate(number, 0)
            os.write(number, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
            return

    def give_back(self) -> None:
        """Remove the file and free the lock."""
        if self._number is not None:
            with suppress(OSError):
                if _same(self._number, self.file):
                    disk.remove(self.file)
            os.close(self._number)
            self._number, self.held = None, False
        elif self._unsupported:  # it says nothing; the file of a lock that another process holds must stay
            with suppress(OSError):
                disk.remove(self.file)


def mark(work: Path, staged: Path) -> None:
    """Note in a work folder which folder belongs to the process: the bundle that it writes, or the one that it replaced."""
    disk.remove(work / _MARK)
    disk.write_new(work / _MARK, str(staged.stat().st_ino).encode())


def leftovers(folder: Path, prefix: str, suffix: str) -> Iterator[tuple[Path, Owner | None]]:
    """Yield work folders of a target: those of this release with their owners, and those of earlier releases.

    Args:
        folder: the one that they are in.
        prefix: how their names begin, such as ``.model.mtl.``.
        suffix: how their names end.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(prefix) and entry.name.endswith(suffix) and not entry.is_symlink() and entry.is_dir():
            name = entry.name[len(prefix) : -len(suffix)]
            owner = Owner.parse(name)
            if owner is not None or re.fullmatch(r"[a-z0-9_]{8}", name):
                yield entry, owner


def is_disposable(work: Path, is_bundle: bool) -> bool:
    """Return whether a dead process's work folder holds nothing but its work and a bundle that it has replaced.

    If it exchanged something else for the new bundle, that belongs to somebody: the process died before it put it back.
    """
    staged = work / STAGED
    try:
        if is_bundle or not any(staged.iterdir()):
            return True
        return (work / _MARK).read_bytes() == str(staged.stat().st_ino).encode()
    except FileNotFoundError:
        return not staged.exists()
    except OSError:
        return False


def _holder(number: int) -> str:
    try:
        found = json.loads(os.pread(number, 4096, 0))
        return f" (process {int(found['process'])} on {found['host']!s})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _same(number: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), file.stat())
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise


def _started(pid: int) -> int:
    """Return when a process was started, in ticks since the kernel's start (proc(5), ``stat``); 0 if not known or ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = text.rpartition(")")[2].split()
        return 0 if state in "ZX" else int(numbers[18])  # a zombie has ended
    except (OSError, ValueError, IndexError):
        return 0


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
