"""Folders for the time of some work, which go however it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from mtl_deploy.runtime.signals import unfinished


@contextmanager
def temporary_folder(prefix: str = "mtl-bench-") -> Iterator[Path]:
    """Yield a new folder, and remove it with what is in it: also where a second signal ends the process at once."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with unfinished(folder):
        try:
            yield folder
        finally:
            rmtree(folder, ignore_errors=True)
