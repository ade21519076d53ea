"""Whether two results are of one network: two files that were swapped must not become a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "tasks": "tasks",
    "kinds": "kinds of the tasks",
    "sizes": "values per task",
    "input": "height and width of the images",
    "channels": "channels of the images",
    "checkpoint_sha256": "checkpoint, by its SHA-256",
}
"""What makes a network, by its field in a result's ``bundle``."""


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return in what the networks of two results differ, in words; what one of them does not know is not compared.

    Args:
        first: a result.
        second: another.
    """
    found = []
    for field, word in _WORDS.items():
        one, other = (document.get("bundle", {}).get(field) for document in (first, second))
        if one is not None and other is not None and one != other:
            found.append(f"{word}: {_shown(one)} and {_shown(other)}")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value)) if all(isinstance(one, int) for one in value) else ", ".join(map(str, value))
    return str(value)[:12]
