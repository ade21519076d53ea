"""The options of the open loop: rates and a deadline."""

from __future__ import annotations

import math

from mtl_deploy.runtime.errors import OptionError

_LARGEST_RATE = 1e6  # requests per second


def parse_rates(text: str) -> tuple[float, ...] | None:
    """Return the rates of ``--rate``, growing; None for ``sweep``.

    Args:
        text: ``sweep``, or requests per second, several with commas between them.

    Raises:
        OptionError: it is neither.
    """
    if text.strip() == "sweep":
        return None
    try:
        rates = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise OptionError(f"--rate {text}: use requests per second, such as 30 or 10,20,40, or sweep") from None
    for rate in rates:
        if not (math.isfinite(rate) and 0 < rate <= _LARGEST_RATE):
            raise OptionError(f"--rate {rate:g}: use requests per second, from more than 0 to {_LARGEST_RATE:.0f}")
    return tuple(rates)


def require_deadline(deadline_ms: float | None) -> None:
    """Check ``--deadline``.

    Raises:
        OptionError: it is not a time.
    """
    if deadline_ms is not None and not (math.isfinite(deadline_ms) and deadline_ms > 0):
        raise OptionError(f"--deadline {deadline_ms:g}: use milliseconds, more than 0")
