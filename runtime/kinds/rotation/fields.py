"""The field that only a rotation task has."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.tasks import Task

VECTORS = ("columns", "rows")


@dataclass(frozen=True)
class RotationOptions:
    """How the network's values stand for a matrix.

    Attributes:
        vectors: whether the values, three by three, are ``columns`` or ``rows`` of the matrix. None: rows of nine values (the
            matrix as PyTorch flattens it), columns of six (Zhou et al., and 6DRepNet after them; PyTorch3D has rows).
    """

    vectors: str | None = option(
        {"enum": [*VECTORS, None]},
        default=None,
        read=str,
        form="write columns or rows",
        doc="whether the network's values are the matrix's columns or its rows",
    )


def by_columns(task: Task) -> bool:
    """Return whether each three of a task's raw values are a column of the matrix."""
    said = task.options.vectors
    return bool(task.size == 6 if said is None else said == "columns")
