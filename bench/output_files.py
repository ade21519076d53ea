"""Where results are written: checked before anything is measured, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError


def check_target(option: str, file: str) -> None:
    """Check that a file can be written, before minutes of measuring.

    Args:
        option: that names it, for messages.
        file: its path.

    Raises:
        OptionError: it is a folder, or lies in none.
    """
    target = Path(file).absolute()
    if target.is_dir():
        raise OptionError(f"{option} {file}: a folder; name a file in it")
    if not target.parent.is_dir():
        raise OptionError(f"{option} {file}: no such folder; make it first")
    if not os.access(target.parent, os.W_OK):
        raise OptionError(f"{option} {file}: the folder cannot be written to; choose another")


def write_whole(option: str, file: str, text: str) -> None:
    """Write a file whole: beside it first, then renamed.

    Args:
        option: that names it, for messages.
        file: its path.
        text: its content.

    Raises:
        OptionError: it cannot be written.
    """
    target = Path(file).absolute()
    try:
        if target.exists() and not target.is_file():  # a pipe or device: there is nothing to rename
            target.write_text(text, encoding="utf-8")
            return
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        beside = Path(name)
        try:
            with open(number, "w", encoding="utf-8") as opened:  # noqa: PTH123 - a descriptor
                opened.write(text)
            mask = os.umask(0)
            os.umask(mask)
            beside.chmod(0o666 & ~mask)
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OptionError(f"{option} {file}: {error.strerror or error}") from error
