"""Where results are written: checked before anything is measured, written whole or not at all, over no other file unless asked."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.text import as_unicode


def check_target(option: str, file: str, *, force: bool) -> None:
    """Check that a file can be written, before minutes of measuring.

    Args:
        option: that names it, for messages.
        file: its path.
        force: replace a file that is there.

    Raises:
        OptionError: it is a folder, lies in none, or is there already.
    """
    target = Path(os.path.realpath(file))
    if target.is_dir():
        raise OptionError(f"{option} {file}: a folder; name a file in it")
    if not target.parent.is_dir():
        raise OptionError(f"{option} {file}: no such folder; make it first")
    if target.is_file() and not force:
        raise OptionError(f"{option} {file}: exists; pass --force to replace it, or name another file")
    if not os.access(target.parent, os.W_OK):
        raise OptionError(f"{option} {file}: the folder cannot be written to; choose another")


def check_targets(files: Mapping[str, str], *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Check several files, that no two are the same, and that none is read.

    Args:
        files: by the options that name them.
        force: replace files that are there.
        inputs: files and folders that the command reads; they are never written over, whatever ``force`` says.

    Raises:
        OptionError: see :func:`check_target`; two options name one file; or one names an input.
    """
    read = [Path(os.path.realpath(path)) for path in inputs if path is not None]
    seen: dict[Path, str] = {}
    for option, file in files.items():
        real = Path(os.path.realpath(file))
        if real.is_file() and any(real.is_relative_to(path) for path in read):
            raise OptionError(f"{option} {file}: that is read, so it is not written over; name another file")
        check_target(option, file, force=force)
        if real in seen and real.parent != Path("/dev"):
            raise OptionError(f"{option} {file}: {seen[real]} names the same file; name another")
        seen[real] = option


def write_whole(option: str, file: str, content: str | bytes, *, force: bool) -> None:
    """Write a file whole: beside it first, then renamed. A link stays, and what it leads to is written.

    Args:
        option: that names it, for messages.
        file: its path.
        content: text, written as UTF-8, or bytes.
        force: replace a file that is there. Without, one that has appeared since :func:`check_target` stays, and the content goes
            beside it under a name of its own: it may have taken minutes to measure.

    Raises:
        OptionError: it cannot be written.
    """
    target = Path(os.path.realpath(file))
    content = content if isinstance(content, bytes) else as_unicode(content).encode()
    try:
        if target.exists() and not target.is_file():  # a pipe or device: there is nothing to rename
            target.write_bytes(content)
            return
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        beside = Path(name)
        try:
            with open(number, "wb") as opened:  # noqa: PTH123 - a descriptor
                opened.write(content)
            mask = os.umask(0)
            os.umask(mask)
            beside.chmod(0o666 & ~mask)
            disk.sync(beside)
            if force:
                disk.rename(beside, target)
            else:
                _rename_beside(option, file, beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        with suppress(OSError):
            disk.sync(target.parent)
    except OSError as error:
        raise OptionError(f"{option} {file}: {error.strerror or error}") from error


def write_each(outputs: Mapping[str, tuple[str, Callable[[], str]]], *, force: bool) -> None:
    """Write several files, each whole. One that cannot be written does not keep the others from it.

    Args:
        outputs: by the options that name them, each file's path and what makes its content.
        force: see :func:`write_whole`.

    Raises:
        OptionError: some could not be written; it names each.
    """
    problems = []
    for option, (file, make) in outputs.items():
        try:
            write_whole(option, file, make(), force=force)
        except OptionError as error:  # noqa: PERF203 - a few files
            problems.append(str(error))
    if problems:
        raise OptionError("; ".join(problems))


def _rename_beside(option: str, file: str, beside: Path, target: Path) -> None:
    for number in range(1000):
        chosen = target.with_name(f"{target.stem}-{number}{target.suffix}") if number else target
        with suppress(FileExistsError):
            disk.rename_new(beside, chosen)
            if number:
                sys.stderr.write(f"warning: {option} {file}: a file of that name has appeared; written to {chosen}\n")
            return
    raise OptionError(f"{option} {file}: exists, and so do files of similar names; name another")
