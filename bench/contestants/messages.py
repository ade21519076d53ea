"""Arguments on their way to a contestant's process: the same large array is sent once, and only mentioned afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_LARGE = 1 << 16  # bytes


@dataclass(frozen=True)
class Kept:
    """A large array among the arguments.

    Attributes:
        value: the array; None where the process has it already.
    """

    value: Any


class Sender:
    """Turns arguments into what is sent. It remembers one array, as one batch is used many times before the next."""

    def __init__(self) -> None:
        self._last: Any = None

    def pack(self, argument: Any) -> Any:
        """Return what is sent for an argument."""
        if not isinstance(argument, np.ndarray) or argument.nbytes < _LARGE:
            return argument
        if argument is self._last:
            return Kept(None)
        self._last = argument
        return Kept(argument)


class Receiver:
    """Turns what was sent back into arguments."""

    def __init__(self) -> None:
        self._last: Any = None

    def unpack(self, argument: Any) -> Any:
        """Return an argument as it was given."""
        if not isinstance(argument, Kept):
            return argument
        if argument.value is not None:
            self._last = argument.value
        return self._last
