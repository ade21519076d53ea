"""Protocol buffers' text format, as ``config.pbtxt`` is written (https://protobuf.dev/reference/protobuf/textformat-spec/)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Word(str):
    """A name of an enumeration, which is written without quotes."""

    __slots__ = ()


def text(message: Mapping[str, Any], indent: str = "") -> str:
    """Return a message: dicts are messages, lists repeat their field."""
    lines = []
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for item in value if repeated else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{name} {{\n{text(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        plain = all(" " <= letter <= "~" and letter not in '"\\' for letter in value)
        escaped = value if plain else "".join(f"\\{byte:03o}" for byte in value.encode())
        return f'"{escaped}"'
    raise TypeError(f"{value!r} has no place in a configuration")
