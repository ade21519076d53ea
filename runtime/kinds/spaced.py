"""Values that a task file gives as a list, or as a start, a stop and a step: of bins, of ranks."""

from __future__ import annotations

import math
from functools import lru_cache

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import Schema

MOST = 1 << 16
"""Of values."""
FORM = "write start:stop:step, such as 0:101:1 for 0 to 100 (the stop is left out), or the values with commas between"
_SLACK = 1e-9  # of a step, by which rounding may move the stop


@lru_cache(maxsize=64)
def listed(values: str | tuple[float, ...]) -> tuple[float, ...]:
    """Return values that are given as they are, or as ``start:stop:step`` without the stop, ``step`` being 1 where it is left out.

    Raises:
        TaskError: they are malformed, or fewer than two or too many.
    """
    if not isinstance(values, str):
        if not all(map(math.isfinite, values)):
            raise TaskError("values: one is not finite")
        return values
    try:
        start, stop, step = (float(part) for part in (values if values.count(":") == 2 else f"{values}:1").split(":"))
        count = math.ceil((stop - start) / step - _SLACK)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise TaskError(f"values {values!r}: {FORM}") from None
    if not 2 <= count <= MOST:
        raise TaskError(
            f"values {values!r} are {'fewer than 2' if count < 2 else f'more than {MOST}'}; give 2 to {MOST}"
        )
    return tuple(start + step * number for number in range(count))


SPACED: Schema = {
    "anyOf": [
        {"type": "string", "maxLength": 100},
        {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": MOST},
    ]
}
"""What such values are in JSON and in a task file."""


def read(text: str) -> str | list[float]:
    """Read them as a command line has them; ValueError where they are no numbers."""
    return text if ":" in text else [float(part) for part in text.split(",")]
