"""Options that are lists of numbers."""

from __future__ import annotations

from mtl_deploy.runtime.errors import OptionError


def parse_numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    """Read whole numbers of 1 or more with commas between them; returns each once, in their order.

    Args:
        option: that they were given to, for messages.
        text: such as ``1,2,4``.
        example: for messages.

    Raises:
        OptionError: they are no numbers, or less than 1.
    """
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise OptionError(f"{option} {text}: use a number, or several such as {example}") from None
    if min(numbers) < 1:
        raise OptionError(f"{option} {min(numbers)}: use 1 or more")
    return numbers
