"""The field that only an embedding task has."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_deploy.runtime.bundle.kinds.options import option

SHORTEST = 1e-12
"""Vectors are divided by no less than this, as in PyTorch's ``normalize``."""


@dataclass(frozen=True)
class EmbeddingOptions:
    """What becomes of the vector.

    Attributes:
        unit_length: whether it is divided by its length, which graphs with decoded outputs do.
    """

    unit_length: bool = option(
        {"type": "boolean"},
        default=False,
        form="write true or false",
        doc="whether the graph divides the vector by its length",
    )
