"""What every contestant is: something that computes a batch's tasks and can be closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .pair import Batch

Outputs = Mapping[str, npt.NDArray[np.generic]]


class Contestant(Protocol):
    """Computes the tasks of a batch. The cost of one call is what is measured."""

    name: str
    details: str  # the library and the provider or device that run it

    def __call__(self, batch: Batch) -> Outputs:
        """Run its tasks on a prepared batch, from host memory to host memory; return the graph's outputs by task."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
