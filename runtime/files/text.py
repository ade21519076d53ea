r"""Text that UTF-8 can hold, of names that it cannot: :func:`os.fsdecode` makes halves of surrogate pairs of other bytes."""

from __future__ import annotations

import re

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def as_unicode(text: str, *, json: bool = False) -> str:
    r"""Return a text with bytes that are not UTF-8 written as ``\xff``.

    Args:
        text: any.
        json: it is JSON, where a backslash is written twice.
    """
    return _NO_CHARACTER.sub(lambda found: ("\\\\" if json else "\\") + _written(ord(found[0])), text)


def _written(number: int) -> str:
    return f"x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"u{number:04x}"
