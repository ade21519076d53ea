"""Files that a command writes for the user: whole, never over an input, and over existing files only when told so."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.signals import unfinished

from . import disk
from .reading import describe


def check_outputs(option: str, targets: Iterable[Path], inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse targets that may not be written, before any work is done for them.

    Args:
        option: the option that names them, for messages.
        targets: files to write.
        inputs: files that the command reads: they are never overwritten, under any of their names.
        force: other files that exist are replaced.

    Raises:
        OptionError: a target is an input, a folder, or exists and may not be replaced.
    """
    read = {found for path in inputs if (found := _identity(path)) is not None}
    for target in targets:
        found = _identity(target)
        if found is not None and found in read:
            raise OptionError(f"{option} {target}: that is an input, which is never overwritten; name another place")
        if target.is_dir():
            raise OptionError(f"{option} {target}: a folder; name a file")
        if not force and (found is not None or target.is_symlink()):
            raise OptionError(f"{option} {target}: exists; pass --force to replace it, or name another place")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what identifies a file under all its names; None where there is no file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def placed(option: str, target: Path, *, force: bool) -> Iterator[Path]:
    """Write a file whole: yield a name beside it with the same suffix, and rename that file to its own name at the end.

    Where the block fails, nothing is left behind.

    Args:
        option: the option that names it, for messages.
        target: the file.
        force: replace it where it exists. Without, a file that has appeared there meanwhile stays.

    Raises:
        OptionError: it cannot be written, or exists.
    """
    beside = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    with unfinished(beside):
        try:
            yield beside
            if not beside.exists():  # nothing was to be written
                return
            disk.sync(beside)
            if force:
                disk.rename(beside, target)
            else:
                disk.rename_new(beside, target)
        except FileExistsError as error:
            raise OptionError(
                f"{option} {target}: exists; pass --force to replace it, or name another place"
            ) from error
        except OSError as error:
            raise OptionError(f"{option} {target}: {describe(error)}") from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
