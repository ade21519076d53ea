"""Which nodes convert and resize a camera's frames in front of a network: work of the border, not of the backbone."""

from __future__ import annotations

BORDER = "preprocess/source/"
"""How the names of these nodes begin."""


def of_border(name: str | None) -> bool:
    """Return whether a node of this name belongs to the border."""
    return name is not None and name.startswith(BORDER)
