"""Claiming a bundle's folder: one writer at a time, clean-up after dead ones, and replacement in one step or not at all."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import MANIFEST, SIGNATURE_FILE
from mtl_deploy.runtime.console.interrupts import held
from mtl_deploy.runtime.errors import LeftoverWarning, OptionError, UnsignedWarning
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.locks import STAGED, Lock, Owner, is_disposable, leftovers, mark

from . import in_place
from .early import EarlyFiles

_INSIDE = ".mtl-"  # how our own names begin inside a bundle's folder, where none can be made beside it


def check_target(target: Path, *, force: bool, option: str = "--output") -> None:
    """Refuse a target that may not be written, before any work is done for it.

    Args:
        target: the bundle's folder, or a link to it.
        force: replace an existing bundle. What is not a bundle is never replaced.
        option: what names the target on the command line, for messages; empty for an operand.

    Raises:
        OptionError: ``target`` exists and may not be replaced.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise OptionError(f"{target} exists; pass --force to replace it, or {_elsewhere(option)}")
    if target.exists() and not _replaceable(target):
        raise OptionError(f"{target} exists and is not a bundle; --force replaces bundles only: move it away")


class Claim:
    """A target that only this process may write: locked, checked, and with a work folder on the same disk.

    Args:
        target: the bundle's folder. A link to a bundle stays a link; what it points to is replaced.
        force: replace an existing bundle.
        update: replace only the bundle that is there now.
        option: what names the target on the command line, for messages; empty for an operand.

    Attributes:
        target: as it was given.
        folder: the real folder, which is replaced.
        update: as it was given.
    """

    def __init__(self, target: Path, *, force: bool, update: bool = False, option: str = "--output") -> None:
        self.target = target
        self.folder = Path(os.path.realpath(target))
        self._force = force
        self.update = update
        self._option = option
        self._manifest: bytes | None = None
        self._made: list[Path] = []
        self._lock: Lock | None = None
        self._work: Path | None = None

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a folder to write the bundle into; when the block succeeds, it is put in the target's place in one step.

        On any exception, Ctrl-C included, the target is as it was.

        Raises:
            OptionError: what is at the target by then may not be replaced, or writing fails, as on a full disk.
        """
        with self._errors():
            if self._work is None:
                raise RuntimeError("the claim has not been taken")
            staged = self._work / STAGED
            with held():
                disk.make_folder(staged)
                mark(self._work, staged)
            yield staged
            disk.sync_tree(staged)
            disk.sync(self._work)
            was_signed, signed = is_signed(self.folder), is_signed(staged)
            with held():
                self._put(staged)
        if was_signed and not signed:
            warn_unsigned(self.target)

    def early_files(self) -> EarlyFiles:
        """Return what writes files before :meth:`writing` begins; those that no bundle takes go with the work folder."""
        if self._work is None:
            raise RuntimeError("the claim has not been taken")
        return EarlyFiles(self._work / "early", self._errors)

    def take(self, inputs: Iterable[Path | None] = ()) -> None:
        """Take the target, and clean up what a dead process has left there.

        Args:
            inputs: files and folders that the work reads.

        Raises:
            OptionError: another process has the target, it may not be replaced, it cannot be written, or it holds an input.
        """
        with self._errors():
            if self.folder.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not self._force:
                check_target(self.target, force=False, option=self._option)
            place, prefix = self._make_place()
            self._lock = Lock(place / f"{prefix}lock")
            self._lock.take(self.target)
            self._mend(place, prefix)
            check_target(self.target, force=self._force, option=self._option)
            self._refuse(inputs)
            if self.update:
                self._manifest = _manifest(self.folder)
            work = place / f"{prefix}{Owner.here()}.partial"
            disk.make_folder(work)
            self._work = work

    def give_back(self) -> None:
        """Remove the work folder, with the replaced bundle in it, and free the target."""
        if self._work is not None:
            disk.remove_tree(self._work)
            self._work = None
        if self._lock is not None:
            self._lock.give_back()
            self._lock = None
        if not self.folder.exists():
            for folder in self._made:
                with suppress(OSError):  # not empty: somebody else uses it by now
                    disk.remove_folder(folder)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = f"free some space or {_elsewhere(self._option)}"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                advice = _elsewhere(self._option, "a place that you may write to")
            raise OptionError(
                f"cannot write {self.target}: {error.strerror or error}; nothing was written: {advice}"
            ) from error

    def _make_place(self) -> tuple[Path, str]:
        """Return where the lock and the work folder go, and how their names begin: beside the target, or in it."""
        parent = self.folder.parent
        for folder in reversed([folder for folder in (parent, *parent.parents) if not folder.exists()]):
            with suppress(FileExistsError):  # another process was faster
                disk.make_folder(folder)
                self._made.insert(0, folder)
        if not os.access(parent, os.W_OK) and self.folder.is_dir() and os.access(self.folder, os.W_OK):
            return self.folder, _INSIDE
        return parent, f".{self.folder.name}."

    def _mend(self, place: Path, prefix: str) -> None:
        """Restore or remove what dead processes left of this target, and say so."""
        locked = self._lock is not None and self._lock.held
        for work, owner in leftovers(place, prefix, ".partial"):
            if owner is None:  # of an earlier release, whose process is not known
                _say(f"{work} is left from a command of an earlier release: remove it, unless that command still runs")
            elif not owner.is_dead(locked=locked):
                if not locked:
                    raise OptionError(
                        f"{self.target} is being written by another command (process {owner.pid}); wait until it has ended, or, "
                        f"if it is no longer running, remove {work}"
                    )
                _say(f"{work} is left from a command on another computer: remove it, unless that command still runs")
            elif is_disposable(work, (work / STAGED / MANIFEST).is_file()):
                disk.remove_tree(work)
                _say(f"removed {work}, left by a command that was killed (process {owner.pid})")
            else:
                _say(f"{work / STAGED} was at {self.target} when a command was killed: move it to where it belongs")
        for work, _ in leftovers(place, prefix, ".old"):  # earlier releases retired bundles there
            retired = work / self.folder.name
            if retired.is_dir() and not self.folder.exists():
                disk.rename_new(retired, self.folder)
                disk.remove_tree(work)
                _say(f"restored {self.target} from {work}, left by a command that was killed")
            else:
                _say(f"{work} is left from a command of an earlier release: remove it, unless that command still runs")
        if self.folder.is_dir() and in_place.recover(self.folder):
            _say(f"{self.target} is whole again: a command was killed while it replaced the files")

    def _refuse(self, inputs: Iterable[Path | None]) -> None:
        for path in inputs:
            if path is not None and Path(os.path.realpath(path)).is_relative_to(self.folder):
                raise OptionError(
                    f"{path} lies in {self.target}, which would be replaced: move it, or {_elsewhere(self._option)}"
                )

    def _put(self, staged: Path) -> None:
        """Move the bundle to its place: by renames that cannot race, or file by file where the folder cannot be exchanged."""
        try:
            disk.rename_new(staged, self.folder)
        except FileExistsError:
            if not self._force:
                raise OptionError(
                    f"{self.target} appeared during the work and was left as it is; {_elsewhere(self._option)}, or pass "
                    "--force if it is a bundle to replace"
                ) from None
            self._replace(staged)
        for folder in (self.folder, *self._made):
            disk.sync(folder.parent)

    def _replace(self, staged: Path) -> None:
        if self._may_go(self.folder):
            with suppress(OSError):  # a private bundle stays private
                staged.chmod(stat.S_IMODE(self.folder.stat().st_mode))
            if _is_current(self.folder):  # a shell in there would end up in a deleted folder
                in_place.replace_files(staged, self.folder)
                return
            try:
                disk.exchange(staged, self.folder)
            except OSError as error:
                if error.errno not in disk.NOT_EXCHANGED:
                    raise
                in_place.replace_files(staged, self.folder)
                return
            if self._may_go(staged):
                mark(staged.parent, staged)  # while it is still whole
                return
            disk.exchange(staged, self.folder)  # it was replaced by something else between the two checks
        raise OptionError(
            f"{self.target} became something else during the work and was left as it is; nothing was written: try again"
        )

    def _may_go(self, folder: Path) -> bool:
        """Return whether a folder is what should be replaced: the same bundle for an update, otherwise any bundle."""
        if folder.is_symlink() or not _replaceable(folder):
            return False
        return not self.update or _manifest(folder) == self._manifest


@contextmanager
def claimed(
    target: Path, *, force: bool, update: bool = False, inputs: Iterable[Path | None] = (), option: str = "--output"
) -> Iterator[Claim]:
    """Claim a target for as long as the work for it takes.

    Args:
        target: the bundle's folder.
        force: replace an existing bundle.
        update: replace only the bundle that is there now.
        inputs: files and folders that the work reads; none of them may lie in a bundle that is replaced.
        option: what names the target on the command line, for messages; empty for an operand.

    Raises:
        OptionError: it may not be replaced, cannot be written, or another process writes it.
    """
    claim = Claim(target, force=force or update, update=update, option=option)
    try:
        with held():
            claim.take(inputs)
        yield claim
    finally:
        with held():
            claim.give_back()


@contextmanager
def writing(target: Path, *, force: bool, option: str = "--output") -> Iterator[Path]:
    """Claim a target and write it whole; see :func:`claimed` and :meth:`Claim.writing`."""
    with claimed(target, force=force, option=option) as claim, claim.writing() as folder:
        yield folder


def is_signed(folder: Path) -> bool:
    """Return whether a bundle has a signature, by any key."""
    return (folder / SIGNATURE_FILE).is_file()


def warn_unsigned(target: Path) -> None:
    """Warn that a bundle has lost its signature: another manifest was signed."""
    warnings.warn(
        f"{target} is no longer signed, as its manifest is a new one: sign it again with mtl-export {target} --engine none "
        "--sign KEY",
        UnsignedWarning,
        stacklevel=2,
    )


def _elsewhere(option: str, place: str = "another place") -> str:
    """Return the advice to write somewhere else."""
    return f"choose {place} with {option}" if option else f"choose {place}"


def _replaceable(folder: Path) -> bool:
    """Return whether a folder is a bundle, or an empty folder."""
    if not folder.is_dir():
        return False
    if (folder / MANIFEST).is_file():
        return True
    return all(entry.name.startswith(_INSIDE) for entry in folder.iterdir())


def _manifest(folder: Path) -> bytes | None:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        return None


def _is_current(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # it no longer exists
        return False


def _say(message: str) -> None:
    warnings.warn(message, LeftoverWarning, stacklevel=2)
