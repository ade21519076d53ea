"""What the runtime calls an array, and how it describes a tensor at a model's border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output of a model.

    Attributes:
        name: the graph's name for it.
        dtype: numpy's.
        shape: one size per dimension; None where it is free (the batch).
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
