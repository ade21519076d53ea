"""How far one tensor of a graph is from the truth, and how far it may be.

The scale of an error is the tensor's **spread** over the images (:mod:`mtl_deploy.calibration.observe.spread`): an error that is
small compared with the values, but not with how much they vary, is a wrong answer. The values of a vector are each judged on
their own scale, since they may have different units; the logits of classes and the channels of a map are judged together. Logits
that only a softmax reads are compared after subtracting the mean over an image's classes, which the softmax does not see. An
output that varies by less than the noise floor is *constant*: it is judged by its size, since there is nothing else.

The **noise floor** of an image is the error of PyTorch's own float32 there, at least the rounding of its result to float32.
It differs from image to image by orders of magnitude, so each image is judged against its own.

- FP32: on every image the largest error is at most :data:`~mtl_deploy.export.tolerances.FLOORS` times the noise floor, or the
  tolerance times the spread, whichever is larger. The graph computes the same sums in another order, and nothing else.
- FP16 rounds every tensor to 11 bits. Its errors behave as if drawn at random, so their root mean square over all images says
  what FP16 costs (the largest error grows with the number of images), and the tolerance limits that; the root mean square of a
  single image may be :data:`ONE_IMAGE` times as large. Where an image's noise floor is more than
  :data:`~mtl_deploy.export.tolerances.FLOORS` times the median, the network amplifies any rounding there, and the image counts
  proportionally less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.observe.spread import Spread
from mtl_deploy.export.tolerances import FLOORS, LEAST_SCALE

from .expected import Outputs

Floats = npt.NDArray[np.float64]

ONE_IMAGE = 5.0


@dataclass(frozen=True)
class TensorVerdict:
    """How one tensor does.

    Attributes:
        each: ``(N,)``: the excess of each image, as a multiple of what is allowed.
        overall: the excess over all images.
        allowed: ``(N, K)``: the error allowed.
        shown: the error that decides.
        decides: what is allowed there.
        rms: root mean square of the error there.
        floor: the largest noise floor that was measured.
        spread: the largest spread.
        constant: ``(K,)``: which values are constant.
    """

    each: Floats
    overall: float
    allowed: Floats
    shown: float
    decides: float
    rms: float
    floor: float
    spread: float
    constant: npt.NDArray[np.bool_]


@dataclass
class TensorErrors:
    """The errors of one tensor, gathered batch by batch. ``K`` values are judged separately; what is pooled counts as one."""

    name: str
    apart: bool  # whether each value of a vector is judged on its own scale
    centred: bool  # whether the mean over the classes is subtracted first
    absolute: bool = False  # probabilities: their scale is 1
    of_sigmoid: bool = False  # log-odds of probabilities, which runtimes compute in steps of 2 ** -24
    spread: Spread = field(default_factory=Spread)
    largest: list[Floats] = field(default_factory=list)
    squares: list[Floats] = field(default_factory=list)
    floors: list[Floats] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)
    measured: float = 0.0  # the largest floor of an image whose float64 answer is known
    sum: float = 0.0
    values: int = 0

    def view(self, array: Outputs) -> Floats:
        """Return values as ``(N, C, P)``: channels at positions."""
        found: Floats = array.reshape(len(array), _channels(array), -1).astype(np.float64)
        return found - found.mean(axis=1, keepdims=True) if self.centred else found

    def add(
        self, found: Outputs, truth: Outputs, own: Outputs, known: npt.NDArray[np.bool_], noise: Floats | None
    ) -> None:
        """Add a batch.

        Args:
            found: what the graph gave.
            truth: the network in float64, where that is known, else in float32.
            own: the network in float32.
            known: ``(N,)``: the images whose float64 answer is known.
            noise: ``(N, K)``: stands for the noise floor of the other images; None: there is nothing to stand for it.
        """
        exact = self.view(truth)
        difference = np.abs(self.view(found) - exact)
        axes = (2,) if self.apart else (1, 2)
        floors = self._kept(np.abs(self.view(own) - exact).max(axis=axes))
        floors[~known] = np.nan if noise is None else noise[~known]
        ulps = np.spacing(np.abs(truth.astype(np.float32)).reshape(len(exact), exact.shape[1], -1)).max(axis=axes) / 2
        self.floors.append(
            np.fmax(floors, self._kept(ulps)) if noise is not None else np.maximum(floors, self._kept(ulps))
        )
        self.measured = max(self.measured, float(self.floors[-1][known].max(initial=0.0)))
        # one step of p is 1 / (p (1 - p)) steps of its logit
        steps = 2.0**-24 * (1 + np.exp(exact)) * (1 + np.exp(-exact)) if self.of_sigmoid else np.zeros_like(exact)
        self.steps.append(self._kept(steps.max(axis=axes)))
        self.largest.append(self._kept(difference.max(axis=axes)))
        self.squares.append(self._kept((difference**2).mean(axis=axes)))
        self.spread.add(exact)
        self.sum += float(difference.sum())
        self.values += difference.size

    def _kept(self, array: npt.NDArray[Any]) -> Floats:
        return np.asarray(array, np.float64).reshape(len(array), -1)

    def floor(self, smallest: Floats) -> Floats:
        """Return each image's noise floor; where it is unknown, the largest known one, or ``smallest`` if none is known."""
        floors = np.concatenate(self.floors)
        known = ~np.isnan(floors)
        worst = np.where(known.any(axis=0), np.max(np.where(known, floors, 0), axis=0), smallest)
        return np.where(known, floors, worst)

    @property
    def scale(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """What errors are relative to, ``(K,)``, and which of the values are constant."""
        size = self.spread.largest if self.apart else self.spread.largest.max(keepdims=True)
        if self.absolute:
            return np.ones(1), np.zeros(1, bool)
        spread = self.spread.each if self.apart else self.spread.pooled
        rounding = np.spacing(size.astype(np.float32)).astype(np.float64)
        constant = spread <= np.maximum(self.floor(rounding).max(axis=0), rounding)
        return np.where(constant, np.maximum(size, LEAST_SCALE), spread), constant

    def judged(self, tolerance: float, precision: str) -> TensorVerdict:
        """Judge the errors.

        Args:
            tolerance: the error allowed, as a share of the spread.
            precision: ``fp32``: by the largest error of each image; others: by the root mean square.
        """
        scale, constant = self.scale
        floors = self.floor(np.zeros_like(scale))
        noise = np.maximum(floors, np.concatenate(self.steps))
        largest, squares = np.concatenate(self.largest), np.concatenate(self.squares)
        if precision == "fp32":
            allowed = np.maximum(FLOORS * noise, tolerance * scale)
            excess = largest / allowed
            image, value = divmod(int(np.argmax(np.nan_to_num(excess, nan=np.inf))), excess.shape[1])
            each, overall, shown, decides = excess.max(axis=1), 0.0, largest[image, value], allowed[image, value]
            rms = np.sqrt(squares.mean(axis=0))[value]
        else:
            weight = _conditioning(floors, scale)[:, None]
            allowed = np.broadcast_to(np.maximum(FLOORS * np.median(noise, axis=0), tolerance * scale), floors.shape)
            roots = np.sqrt(squares) / weight
            together = np.sqrt((roots**2).mean(axis=0))
            value = int(np.argmax(np.nan_to_num(together / allowed[0], nan=np.inf)))
            each, overall = (roots / (ONE_IMAGE * allowed)).max(axis=1), float((together / allowed[0])[value])
            shown, decides, rms = together[value], allowed[0, value], together[value]
        spread = self.spread.each if self.apart else self.spread.pooled
        return TensorVerdict(
            each=each,
            overall=overall,
            allowed=allowed,
            shown=float(shown),
            decides=float(decides),
            rms=float(rms),
            floor=self.measured,
            spread=float(spread.max()),
            constant=constant,
        )


def _conditioning(floors: Floats, scale: Floats) -> Floats:
    """Return by how much less each image counts, ``(N,)``: 1 where it is no worse conditioned than most."""
    relative = (floors / scale).max(axis=1)
    usual = FLOORS * float(np.median(relative))
    return np.maximum(1.0, relative / usual) if usual > 0 else np.ones(len(relative))


def _channels(array: Outputs) -> int:
    return array.shape[1] if array.ndim in (2, 4) else 1  # a decoded depth map has no channel axis
