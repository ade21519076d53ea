"""Commands whose output nobody reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any


def without_a_reader(command: Sequence[Any], *, stderr_too: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command as the first of ``command | true`` whose second has already ended; with ``2>&1`` where ``stderr_too``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [str(part) for part in command],
            stdout=writer,
            stderr=writer if stderr_too else subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
