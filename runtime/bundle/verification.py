"""What verification says of one artifact and one task, as the manifest records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """How one artifact does on one task: one row of a manifest's ``verification``.

    Attributes:
        artifact: path in the bundle.
        task: the task's name.
        samples: number of images.
        max_error: largest absolute difference of an output value, in the output's unit. Of class indices: the largest margin,
            in logits, by which the network prefers its own class to the one that a pixel got; near ties may fall either way. Of
            unit vectors: the difference times the length that the network gave the vector, since a short one hardly points.
        mean_error: mean absolute difference, of class indices the mean margin.
        tolerance: what ``error`` may not exceed: the largest one of a picture, of FP16 the root mean square.
        agreement: share of images, of a segmentation of pixels, on which both choose the same class; None where there are none.
        logit_error: largest absolute difference of the values behind the output: of the logits behind probabilities, which
            saturate and would hide it, of a regression before its scale and offset, of the raw map behind a dense output; None
            where the output is the network's own.
        logit_tolerance: what the error of those may not exceed.
        error: the error that decides, see ``tolerance``; None where it is ``max_error``.
        rms_error: root mean square of the difference, over images and values; None where it was not computed.
        excess: the error that decides, of the output or of what is behind it, as a multiple of what is allowed; NaN where an
            error is.
        floor: the noise floor: the largest error of PyTorch's own float32 against float64, of probabilities that of the logits
            behind them, as ``spread``; None where it is not known.
        spread: four standard deviations of the output over the images; None where errors are judged on another scale.
        constant: whether the output, or a value of it, does not vary by more than the noise floor: it is judged by its own size.
        truth: ``float64``, or ``float32`` where the network does not run in double precision.
        structure_excess: of an FP16 graph, the error of the same graph in float32 as a multiple of what FP32 is allowed: it
            finds a wrong graph where rounding would hide it. None for other precisions.
        against: the file that the artifact is compared with, by its path in the bundle; None: the network.
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
        if self.against is None:
            del record["against"]
        return record


ILL_CONDITIONED = 1e-4
"""A noise floor beyond this share of the spread is named: FP32 graphs are usually as exact as that."""
