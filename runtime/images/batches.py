"""Cutting a stack of images into the batches that an artifact takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Stack(Protocol):
    """Images one behind the other: an array, or what reads a part of them when it is asked."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, key: slice, /) -> npt.NDArray[Any]:
        """Return some of them, ``(n, ...)``."""
        ...


def pieces(images: Stack, size: int, *, least: int = 1) -> Iterator[npt.NDArray[Any]]:
    """Yield batches of a size, in order; the last one is as small as what is left, but has ``least`` images.

    What is missing is filled up with the last image: a batch of zeros may hold what a network has never seen. What a graph computes
    of these is to be thrown away. All batches but a filled one are views of ``images``.

    Args:
        images: ``(N, ...)``, N is 1 or more.
        size: images per batch.
        least: the smallest batch that is taken; ``size`` itself where only that one is.
    """
    for start in range(0, len(images), size):
        piece = images[start : start + size]
        if (missing := least - len(piece)) > 0:
            piece = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
        yield piece
