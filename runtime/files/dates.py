"""The time that files say they were made at."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from mtl_deploy.runtime.errors import OptionError

VARIABLE = "SOURCE_DATE_EPOCH"
"""https://reproducible-builds.org/specs/source-date-epoch/"""


def created() -> str:
    """Return the time in UTC as ISO 8601 writes it, to the second: now, or what ``SOURCE_DATE_EPOCH`` says.

    Raises:
        OptionError: the variable is no number of seconds since 1970.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(text)
        return datetime.fromtimestamp(int(text), timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        raise OptionError(
            f"{VARIABLE}={text!r}: use whole seconds since 1970, as date +%s prints them, or unset it"
        ) from None
