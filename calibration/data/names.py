"""Names in a list or a CSV file that mean a file on disk but are spelt differently.

The same name may be written in composed or decomposed Unicode (macOS decomposes; Unicode Standard Annex 15), with another case
(Windows and macOS ignore it), with backslashes, or with ``./`` in front.
"""

from __future__ import annotations

import codecs
import os
import posixpath
import unicodedata
from pathlib import Path

from mtl_deploy.runtime.files.reading import read_bytes


def folded(name: str) -> str:
    """Return what all spellings of a name have in common."""
    composed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return posixpath.normpath(unicodedata.normalize("NFC", composed.casefold()))


class Folders:
    """Finds files by their names, however these are spelt; a folder is listed once at most."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path | None:
        """Return the path of the file as it is on disk: the one with this very name, else the only one that it can mean."""
        if os.path.lexists(path):
            return path
        as_written = Path(str(path).replace("\\", "/"))
        found = Path(as_written.anchor)
        for part in as_written.relative_to(as_written.anchor).parts:
            if not os.path.lexists(found / part):
                names = self._list(found).get(folded(part), [])
                if len(names) != 1:
                    return None
                found /= names[0]
            else:
                found /= part
        return found

    def _list(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            try:
                for file in folder.iterdir():
                    names.setdefault(folded(file.name), []).append(file.name)
            except OSError:
                pass  # there is nothing in it that a name can mean
            self._names[folder] = names
        return self._names[folder]


def read_names(file: Path, *, errors: str = "strict") -> str:
    """Return a text file that a person or a spreadsheet wrote: UTF-8, or UTF-16 with its mark; the mark is left out.

    Args:
        file: the text file.
        errors: ``surrogateescape`` keeps the bytes of names that are not UTF-8, as :func:`os.fsdecode` does.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no such text.
    """
    content = read_bytes(file, regular=False)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if (place := content.find(0)) >= 0:
        raise UnicodeDecodeError("utf-8", content[place : place + 1], 0, 1, "a NUL, which no text has")
    return content.decode("utf-8-sig", errors)
