"""What is done about rows of verification that are out of tolerance."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.errors import VerificationError


def require_passed(rows: Sequence[Row]) -> None:
    """Raise if a row is out of tolerance.

    Raises:
        VerificationError: names every artifact and task that failed, with figures.
    """
    if failed := [row for row in rows if not row.passed]:
        raise VerificationError(f"{described(failed)}. Nothing was written")


def described(failed: Sequence[Row]) -> str:
    """Return by how much rows failed, with the network's own error beside the graph's."""
    return f"no match with the network: {'; '.join(_described(row) for row in failed)}"


def _described(row: Row) -> str:
    error = row.max_error if row.error is None else row.error
    text = f"{row.artifact}, task {row.task!r}: error {error:.3g} (allowed {row.tolerance:.3g})"
    if row.logit_error is not None:
        text += f", of its logits {row.logit_error:.3g} (allowed {row.logit_tolerance:.3g})"
    if row.structure_excess is not None and not row.structure_excess <= 1:
        text += f", and computed in float32 its error is {row.structure_excess:.3g} times what an FP32 graph is allowed"
    if row.floor is not None:
        text += f"; the network's own float32 is {row.floor:.3g} off float64 there"
    if row.ill_conditioned:
        text += " (the network is ill-conditioned on these images: are they like those that it was trained on?)"
    return text
