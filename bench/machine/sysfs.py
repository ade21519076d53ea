"""Small files in which Linux describes a machine, read without ever failing: what is not known is None."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def read(path: Path) -> str | None:
    """Return a file's text without surrounding blanks and zero bytes; None where it cannot be read, or is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except (OSError, ValueError):
        return None
    return text or None


def read_int(path: Path) -> int | None:
    """Return a file's number; None where there is none."""
    text = read(path)
    try:
        return None if text is None else int(text.split()[0], 0)
    except ValueError:
        return None


def read_table(path: Path) -> dict[str, int]:
    """Return the numbers of a file with lines such as ``MemTotal: 16 kB`` or ``nr_throttled 3``, by the word before them."""
    found = {}
    for line in (read(path) or "").splitlines():
        words = line.replace(":", " ", 1).split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def glob(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the paths that match, sorted; none where a folder cannot be listed."""
    try:
        yield from sorted(root.glob(pattern))
    except OSError:
        return
