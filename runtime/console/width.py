"""How wide text for people may be."""

from __future__ import annotations

import shutil

MOST = 128
"""Columns: longer lines are hard to read."""
LEAST = 40


def width() -> int:
    """Return the columns that text may fill: the terminal's (``COLUMNS``, where it is set), within limits; 80 without one."""
    return max(LEAST, min(shutil.get_terminal_size((80, 24)).columns, MOST))
