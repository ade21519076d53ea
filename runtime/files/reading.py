"""Files that somebody else wrote: bounded in size, no pipe or device where a file is expected, and JSON without traps.

A trap is something that JSON allows and that breaks a program later, far from the file: thousands of nested brackets, numbers
of thousands of digits, NaN, halves of surrogate pairs. :func:`parse_json` refuses them, so that later code need not handle them.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from typing import Any, BinaryIO

MOST_BYTES = 256 << 20
"""Bytes of a document: a manifest, a result, a cache, a table of labels."""
MOST_DEPTH = 64
"""Levels of nested lists and objects."""
MOST_INTEGER = 2**63 - 1

_DIGITS = 19  # the integers that fit in 64 bits
_SHOWN = 60  # characters of a value or name that an error shows


class DocumentError(ValueError):
    """A document does not have the expected form: what is wrong, and where in the document.

    Attributes:
        path: keys and positions that lead to the place, from the outside in.
        problem: what is wrong there.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str | int] = []

    def below(self, key: str | int) -> DocumentError:
        """Return the error with a key or position put in front of its path."""
        self.path.insert(0, key)
        return self

    def __str__(self) -> str:
        """For people: ``artifacts[2].batch_min: 0 is less than 1``."""
        where = "".join(_step(key) for key in self.path).removeprefix(".")
        return f"{where}: {self.problem}" if where else self.problem


def shown(value: object) -> str:
    """Return a value as an error shows it: as JSON where possible, short, without control characters."""
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = "a long number" if isinstance(value, int) and abs(value) > MOST_INTEGER else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.isidentifier() and len(key) <= _SHOWN else f"[{shown(key)}]"


def open_file(path: str | os.PathLike[str], *, regular: bool = True) -> BinaryIO:
    """Open a file for reading, in binary.

    Args:
        path: its path.
        regular: refuse pipes, devices and sockets, without waiting for them or reading from them.

    Raises:
        OSError: it cannot be opened, is a folder, or another kind of file than was asked for; ``strerror`` says which.
    """
    try:
        if regular and not stat.S_ISREG(kind := os.stat(path).st_mode):  # noqa: PTH116 - first: opening a device can have effects
            raise _not_regular(kind, path)
        return open(path, "rb", opener=_regular if regular else None)
    except ValueError as error:  # a NUL, or a character that no file name can hold
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from error


def _regular(path: str, flags: int) -> int:
    """Open a file with the flags that :func:`open` passes, and check what was opened."""
    number = os.open(path, flags | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(kind := os.fstat(number).st_mode):
            raise _not_regular(kind, path)
    except BaseException:
        os.close(number)
        raise
    return number


def _not_regular(kind: int, path: str | os.PathLike[str]) -> OSError:
    if stat.S_ISDIR(kind):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return OSError(errno.EINVAL, "Not a regular file, but a pipe, socket or device", os.fspath(path))


def read_bytes(path: str | os.PathLike[str], most: int | None = MOST_BYTES, *, regular: bool = True) -> bytes:
    """Return a file's content.

    Args:
        path: its path.
        most: bytes; None: no bound.
        regular: see :func:`open_file`.

    Raises:
        OSError: it cannot be read, is larger, or see :func:`open_file`; ``strerror`` says which.
    """
    with open_file(path, regular=regular) as stream:
        if stat.S_ISREG((found := os.fstat(stream.fileno())).st_mode):
            if most is not None and found.st_size > most:
                raise _too_large(path, most)
            return stream.read()
        parts: list[bytes] = []
        size = 0
        while part := stream.read(1 << 20):
            parts.append(part)
            size += len(part)
            if most is not None and size > most:
                raise _too_large(path, most)
        return b"".join(parts)


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> str:
    """Return the text of a file that the user named, at most :data:`MOST_BYTES`; it may be a pipe.

    Raises:
        OSError: it cannot be read; ``strerror`` says why.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, regular=False).decode(encoding)


def _too_large(path: str | os.PathLike[str], most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {most >> 20} MiB", os.fspath(path))


def parse_json(content: bytes | str) -> Any:
    """Return the document that a JSON text holds.

    Args:
        content: the text, in UTF-8.

    Raises:
        DocumentError: it is not JSON, or holds what :func:`check_plain` refuses.
    """
    try:
        text = content if isinstance(content, str) else str(content, "utf-8")
        document = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 text (byte {error.start})") from error
    except DocumentError as error:
        raise DocumentError(f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise DocumentError(f"nested deeper than {MOST_DEPTH} levels") from error
    except ValueError as error:
        raise DocumentError(f"not valid JSON ({error})") from error
    check_plain(document)
    return document


def check_plain(document: object) -> None:
    """Check that a document can be traversed, printed and written again.

    Raises:
        DocumentError: it is nested deeper than :data:`MOST_DEPTH`, or holds an integer of more than 64 bits, NaN, infinity, or text
            that is no Unicode.
    """
    _check_plain(document, MOST_DEPTH)


def _check_plain(value: object, levels: int) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError(f"{value} is not a finite number")
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):
        if abs(value) > MOST_INTEGER:
            raise DocumentError("a number of more than 64 bits")
    elif isinstance(value, (dict, list)):
        if not levels:
            raise DocumentError(f"nested deeper than {MOST_DEPTH} levels")
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inner:
            try:
                if isinstance(key, str):
                    _check_text(key)
                _check_plain(one, levels - 1)
            except DocumentError as error:  # noqa: PERF203 - to say where
                raise error.below(key) from None


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DocumentError("text with half of a surrogate pair, which is not a character") from error


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS + 1:  # a sign
        raise DocumentError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise DocumentError(f"{name} is not a JSON number")


def describe(error: BaseException) -> str:
    """Return an error's message in one line: the system's where there is one, else its text, else its type."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())
