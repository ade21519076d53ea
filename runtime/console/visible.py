r"""Text that somebody else chose, printed so that a terminal executes none of it.

Labels, units, file and contestant names may hold escape sequences that move the cursor, hide what is printed after them, or worse.
Before a terminal gets them, such characters become ``\u001b``: people can see that, and JSON reads it back as the character.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from .redacted import redacted

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's categories of controls, formats (marks of direction among them), surrogates, and line and paragraph separators."""
_JOINERS = frozenset("\u200c\u200d")  # which scripts and emoji need, and which are harmless


def visible(text: str, keep: str = "") -> str:
    r"""Return a text whose control characters, marks of direction and halves of surrogate pairs are written as ``\u001b``.

    Args:
        text: any; line ends and tabs are control characters too.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(one if one in keep or not _is_hidden(one) else _escaped(one) for one in text)


def _is_hidden(character: str) -> bool:
    return not character.isprintable() and character not in _JOINERS and unicodedata.category(character) in _HIDDEN


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


class VisibleStream:
    """A text stream that prints control characters visibly, except line ends and tabs, and outlives its reader.

    Once a reader has gone away (``| head -1``), what is written is lost, and nothing else changes: a command ends with the exit
    code that it would have had.

    Args:
        stream: the one that it writes to; all other attributes are passed on.
        hide: whether passwords in addresses are hidden, whoever writes them.

    Attributes:
        unread: whether the reader has gone away.
    """

    def __init__(self, stream: TextIO, *, hide: bool = False) -> None:
        self.stream = stream
        self._hide = hide
        self.unread = False

    def write(self, text: str) -> int:
        """Write a text."""
        safe = visible(redacted(text) if self._hide else text, keep="\n\t")
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        if not safe.isascii() and not encoding.lower().replace("-", "").startswith("utf"):
            safe = safe.encode(encoding, "backslashreplace").decode(encoding)
        try:
            self.stream.write(safe)
        except BrokenPipeError:
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Hand what was written to the reader, if there still is one."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._lose()

    def _lose(self) -> None:
        """Send what is still to be written nowhere: the interpreter itself flushes at its end, and fails where it cannot."""
        self.unread = True
        with suppress(OSError, ValueError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def terminal(stream: Any) -> Any:
    """Return the stream below a :class:`VisibleStream`: for a command's own control sequences."""
    return stream.stream if isinstance(stream, VisibleStream) else stream


def unread(stream: Any) -> bool:
    """Return whether a stream's reader has gone away, as far as was noticed: for work that nothing but its output is for."""
    return isinstance(stream, VisibleStream) and stream.unread


@contextmanager
def visible_output() -> Iterator[None]:
    """Print what the block writes to standard output and standard error visibly, however the block ends."""
    import sys

    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, VisibleStream) else VisibleStream(stream, hide=stream is before[1])
        for stream in before
    )
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a full disk, or closed; whoever wrote to it was told
                stream.flush()
        sys.stdout, sys.stderr = before
