"""What verification says of one artifact and one task, as the manifest records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """How one artifact does on one task: one row of a manifest's ``verification``.

    Attributes:
        artifact: path in the bundle.
        task: name of the task.
        samples: number of images.
        max_error: largest absolute difference of an output value, in the unit of the output. For class indices: the largest
            margin, in logits, by which the network prefers its own class to the one that a pixel got; near ties may fall either
            way. For unit vectors: the difference times the length that the network gave the vector, since a short vector has
            hardly any direction.
        mean_error: mean absolute difference; for class indices the mean margin.
        tolerance: what ``error`` may not exceed: the largest error of an image, for FP16 the root mean square.
        agreement: share of images (for a segmentation of pixels) on which both choose the same class; None if there are no
            classes.
        logit_error: largest absolute difference of the values behind the output: of the logits behind probabilities, which
            saturate and would hide it; of a regression before its scale and offset; of the raw map behind a dense output. None
            if the output is the network's own.
        logit_tolerance: what the error of those may not exceed.
        error: the error that decides, see ``tolerance``; None if it is ``max_error``.
        rms_error: root mean square of the difference, over images and values; None if it was not computed.
        excess: the error that decides, of the output or of what is behind it, as a multiple of what is allowed; NaN if an
            error is NaN.
        floor: the noise floor: the largest error of PyTorch's own float32 against float64; for probabilities that of the logits
            behind them, as for ``spread``. None if it is not known.
        spread: four standard deviations of the output over the images; None if errors are judged on another scale.
        constant: whether the output, or one of its values, varies by no more than the noise floor: it is judged by its own size.
        truth: ``float64``, or ``float32`` if the network does not run in double precision.
        structure_excess: for an FP16 graph, the error of the same graph in float32 as a multiple of what FP32 is allowed: it
            reveals a wrong graph where rounding would hide it. None for other precisions.
        against: the file that the artifact is compared with, by its path in the bundle; None: the network.
        cut_from: of a separate model that is a part of a shared graph, node for node and weight for weight: that graph, by its
            path in the bundle. The figures are the shared graph's; the artifact itself was run on a few images. None: the
            figures are its own.
    """

    artifact: str
    task: str
    samples: int
    max_error: float
    mean_error: float
    tolerance: float
    agreement: float | None
    logit_error: float | None = None
    logit_tolerance: float | None = None
    error: float | None = None
    rms_error: float | None = None
    excess: float = 0.0
    floor: float | None = None
    spread: float | None = None
    constant: bool = False
    truth: str = "float32"
    structure_excess: float | None = None
    against: str | None = None
    cut_from: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the errors are within tolerance; a NaN is not."""
        return self.excess <= 1 and (self.structure_excess is None or self.structure_excess <= 1)

    @property
    def ill_conditioned(self) -> bool:
        """Whether float32 itself is so far off float64 that the usual tolerance could not hold."""
        return self.floor is not None and self.spread is not None and self.floor > ILL_CONDITIONED * self.spread

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's record."""
        record = asdict(self)
        for name in ("against", "cut_from"):
            if record[name] is None:
                del record[name]
        return record


ILL_CONDITIONED = 1e-4
"""A noise floor beyond this share of the spread is named: FP32 graphs are usually as exact as that."""
