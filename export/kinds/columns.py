"""Tensors of any shape as columns that are judged apart, for kinds that keep their output's shape."""

from __future__ import annotations

import numpy as np

from .base import Outputs

COLUMNS = 64
"""Of a tensor with more columns than this, all are judged on one scale."""


def by_columns(array: Outputs) -> Outputs:
    """Return a tensor as ``(N, K, P, 1)``: its K columns, which may have different units, and P rows or places of each.

    Columns are the values of a vector, the channels of a map ``(N, C, h, w)``, and otherwise the last axis, as of boxes
    ``(N, boxes, 4)``. Where there are more than :data:`COLUMNS`, they are features of one kind and count as one.
    """
    columns = array if array.ndim in (2, 4) else np.moveaxis(array, -1, 1)
    count = columns.shape[1] if columns.shape[1] <= COLUMNS else 1
    return columns.reshape(len(array), count, -1, 1)
