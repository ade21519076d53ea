"""``--constant NAME=VALUE``: other arguments of a network's ``forward``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mtl_deploy.runtime.errors import OptionError

Constant = bool | int | float | str | tuple["Constant", ...] | None

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}
_INTEGER = re.compile(r"[+-]?\d+")
_SIZE = re.compile(r"\d+(x\d+)+")


def parse_constants(texts: Iterable[str]) -> dict[str, Constant]:
    """Read constants: ``480x640`` is ``(480, 640)``, ``1,2`` is ``(1, 2)``, ``2,`` is ``(2,)``.

    ``true``, ``false`` and ``none`` are Python's; integers and floats are numbers; anything else is text.

    Raises:
        OptionError: a text has another form, or a name is given twice.
    """
    found: dict[str, Constant] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier():
            raise OptionError(f"--constant {text!r}: write NAME=VALUE, such as out_size=480x640")
        if name in found:
            raise OptionError(f"--constant: {name!r} is given twice; give it once")
        found[name] = _value(value)
    return found


def _value(text: str) -> Constant:
    if "," in text:
        return tuple(_value(part.strip()) for part in text.removesuffix(",").split(","))
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _SIZE.fullmatch(text):
        return tuple(int(part) for part in text.split("x"))
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
