"""Options that are lists of numbers."""

from __future__ import annotations

from mtl_deploy.runtime.errors import OptionError


def parse_numbers(option: str, text: str, example: str, most: int | None = None) -> tuple[int, ...]:
    """Read whole numbers of 1 or more with commas between them; returns each once, in their order.

    Args:
        option: that they were given to, for messages.
        text: such as ``1,2,4``.
        example: for messages.
        most: the largest that can be used; None: any.

    Raises:
        OptionError: they are no numbers, less than 1, or more than ``most``.
    """
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise OptionError(f"{option} {text}: use a number, or several such as {example}") from None
    if min(numbers) < 1:
        raise OptionError(f"{option} {min(numbers)}: use {'1 or more' if most is None else f'1 to {most}'}")
    if most is not None and max(numbers) > most:
        raise OptionError(f"{option} {max(numbers)}: use 1 to {most}")
    return numbers


def parse_threads(text: str | None) -> tuple[int, ...]:
    """Read ``--threads``, which the run and the scaling over threads share; empty where it was not given.

    Raises:
        OptionError: see :func:`parse_numbers`.
    """
    return () if text is None else parse_numbers("--threads", text, "1,2,4")
