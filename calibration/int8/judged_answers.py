"""FP32's outputs on the images that methods are compared on, kept while ranges are observed, so that it need not run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 64 << 20
"""Bytes that are kept at most; of large maps, the graph is run again."""

Array = npt.NDArray[Any]


class JudgedAnswers:
    """The outputs of some of the images of a pass.

    Args:
        positions: of these images among all of the pass.

    Attributes:
        positions: as given.
    """

    def __init__(self, positions: npt.NDArray[np.int64]) -> None:
        self.positions = positions
        self._rows: dict[str, list[Array]] = {}
        self._seen = self._bytes = 0

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Keep what is wanted of a batch; batches come in order.

        Args:
            outputs: by name, one row per image.
        """
        count = min(map(len, outputs.values()))
        inside = self.positions[(self.positions >= self._seen) & (self.positions < self._seen + count)] - self._seen
        self._seen += count
        if self._bytes > MOST or any(len(rows) != count for rows in outputs.values()):
            self._bytes = MOST + 1
            self._rows = {}
            return
        for name, rows in outputs.items():
            kept = rows[inside]
            self._bytes += kept.nbytes
            self._rows.setdefault(name, []).append(kept)

    @property
    def outputs(self) -> dict[str, Array] | None:
        """The outputs by name, in the order of the positions; None if they were not seen, or were too large."""
        if self._bytes > MOST or not self._rows or self._seen <= self.positions.max():
            return None
        return {name: np.concatenate(rows) for name, rows in self._rows.items()}
