"""How far a graph's outputs for one task are from the truth, and how far they may be.

The truth is the network in float64, on the images that it has answered for in float64; on others its float32 answer.

The scale of an error is the task's **spread** over the images (:mod:`mtl_deploy.calibration.observe.spread`): an error that is
small beside the values, but not beside how they differ, is a wrong answer. Values of a vector are judged each on its own scale,
since they may have different units; the logits of classes, the channels of a map, together. Logits that only a softmax reads
are compared without the mean of an image's classes, which the softmax does not see. An output that varies by less than the
noise floor is *constant*: only its size is left to judge it by.

The **noise floor** of an image is the error of PyTorch's own float32 there, at least the rounding of its result to float32.
It differs from image to image by orders of magnitude, so each is judged on its own.

- FP32: on every image the largest error is at most :data:`FLOORS` times the noise floor or the tolerance times the spread,
  whichever is larger. Graphs compute the same sums in another order, and nothing else.
- FP16 rounds every tensor to 11 bits. Its errors are as if drawn at random, so their root mean square over all images says
  what it costs (the largest of many grows with their number), and is what the tolerance holds for; of a single image it is at
  most :data:`ONE_IMAGE` times as large. Where an image's noise floor is more than :data:`FLOORS` times the median, the
  network amplifies any rounding there, and the image counts by so much less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.observe.spread import Spread
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.verification import Row

from .expected import Expected, Outputs, compared, upsampled

Floats = npt.NDArray[np.float64]

FLOORS = 4.0
ONE_IMAGE = 5.0
ONE_PIXEL = 10.0  # for what is judged pixel by pixel: the largest of a million is further out
LEAST_SCALE = 1e-3
"""The scale of a constant output is its largest value, but not less than this."""


@dataclass(frozen=True)
class Judged:
    """A row, with what it was made of.

    Attributes:
        row: for the report.
        errors: by tensor ``(N, K)``: the largest error of each image, in the order of all samples.
        unproven: samples and places of images that are over what is allowed and that float64 has not answered for.
    """

    row: Row
    errors: Mapping[str, Floats]
    unproven: tuple[tuple[int, int], ...]


@dataclass
class _Tensor:
    """The errors of one tensor. ``K`` values are judged apart; what is pooled counts as one."""

    name: str
    apart: bool
    centred: bool
    absolute: bool = False  # probabilities: their scale is 1
    of_sigmoid: bool = (
        False  # log-odds, computed from probabilities in steps of 2 ** -24, as runtimes compute a sigmoid
    )
    spread: Spread = field(default_factory=Spread)
    largest: list[Floats] = field(default_factory=list)
    squares: list[Floats] = field(default_factory=list)
    floors: list[Floats] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)
    measured: float = 0.0  # the largest floor of an image that float64 has answered for
    sum: float = 0.0
    values: int = 0

    def view(self, array: Outputs) -> Floats:
        """Return values as ``(N, C, P)``: channels at positions."""
        found: Floats = array.reshape(len(array), _channels(array), -1).astype(np.float64)
        return found - found.mean(axis=1, keepdims=True) if self.centred else found

    def add(
        self, found: Outputs, truth: Outputs, own: Outputs, known: npt.NDArray[np.bool_], noise: Floats | None
    ) -> None:
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
        # a step of p is 1 / (p (1 - p)) as many of x
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
        """Return each image's noise floor; of those where it is not known the largest of the others, or what there is at least."""
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


class Comparison:
    """The errors of one task, gathered batch by batch."""

    def __init__(self, task: Task, signature: Signature) -> None:
        self._task, self._signature = task, signature
        output, *logits = compared(task, signature)
        decoded = signature.outputs == "decoded"
        classes_of = task.kind in ("binary", "multiclass", "segmentation") and task.size > 1
        shifts = (
            decoded and classes_of and task.applied == "none"
        )  # the same number more for all classes changes nothing
        self._output = _Tensor(
            output,
            apart=task.kind == "regression" or (task.kind == "binary" and task.size == 1),
            centred=shifts and task.kind == "segmentation" and not task.argmax,
            absolute=task.kind in ("binary", "multiclass") and (decoded or task.gives_probabilities),
        )
        if self._output.absolute:
            self._output.apart = False
        self._behind = [
            _Tensor(name, task.kind == "regression", shifts, of_sigmoid=task.applied == "sigmoid" and not task.dense)
            for name in logits
        ]
        self._margins: list[Floats] = []
        self._margin_sum, self._margin_count = 0.0, 0
        self._places: list[tuple[int, int]] = []
        self._known: list[npt.NDArray[np.bool_]] = []
        self._choices = self._alike = 0
        self._truth = False

    def add(self, actual: Mapping[str, Outputs], expected: Expected, start: int, stop: int, sample: int = 0) -> None:
        """Compare what a graph gave on the images from ``start`` to ``stop`` with what it must give.

        Args:
            actual: by the names of :func:`~mtl_deploy.export.verification.expected.compared`.
            expected: the truth.
            start: the first image.
            stop: behind the last.
            sample: which of several sets of images this is.
        """
        truth = expected.outputs(self._task, start, stop, exact=True)
        own = expected.outputs(self._task, start, stop)
        exact = bool(expected.exact)
        known = expected.known[start:stop] if exact else np.zeros(stop - start, bool)
        self._truth |= exact
        self._places += [(sample, place) for place in range(start, stop)]
        self._known.append(known if exact else np.ones(stop - start, bool))  # nobody can be asked about the others
        found, wanted = actual[self._output.name], truth[self._output.name]
        values = [*self._behind]
        if has_margins(self._task, self._signature):
            margin = self._margin(found, wanted, truth[self._behind[0].name])
            self._margins.append(margin.reshape(len(margin), -1).max(axis=1))
            self._margin_sum += float(margin.sum())
            self._margin_count += margin.size
        else:
            values.append(self._output)
        for tensor in values:
            noise = expected.noise.get(tensor.name)
            shown = None if noise is None else noise[start:stop]
            tensor.add(actual[tensor.name], truth[tensor.name], own[tensor.name], known, shown)
        if self._task.kind not in ("regression", "depth", "normals"):
            self._agree(found, wanted)

    def judged(self, path: str, tolerance: float, precision: str = "fp32") -> Judged:
        """Return the result; ``tolerance`` is of the spread."""
        margins = has_margins(self._task, self._signature)
        output = self._behind[0] if margins else self._output
        own = _judge(output, tolerance, precision)
        behind = [_judge(tensor, tolerance, precision) for tensor in self._behind]
        scaled = behind[0] if output.absolute and behind else own  # what is judged by its spread
        excess = [found.each for found in (own, *behind)]
        error = rms = None
        if margins:
            factor = 2 * (ONE_PIXEL if precision != "fp32" else 1)  # one value may be too small, another too large
            margin = np.concatenate(self._margins)
            allowed = factor * behind[0].allowed.max(axis=1)
            excess.append(margin / allowed)
            worst = int(np.argmax(np.nan_to_num(margin / allowed, nan=np.inf)))
            error, decides, mean = (
                float(margin.max()),
                float(allowed[worst]),
                self._margin_sum / max(self._margin_count, 1),
            )
        else:
            error, decides = float(np.concatenate(output.largest).max()), own.decides
            mean, rms = output.sum / max(output.values, 1), own.rms
        per_image = np.max([part.reshape(len(part)) for part in excess], axis=0)
        overall = max(
            (found.overall for found in (own, *behind)), key=lambda value: np.inf if np.isnan(value) else value
        )
        total = float(np.max([np.max(per_image), overall]))
        known = np.concatenate(self._known)
        row = Row(
            artifact=path,
            task=self._task.name,
            samples=len(self._places),
            max_error=error,
            mean_error=mean,
            tolerance=decides,
            agreement=self._alike / self._choices if self._choices else None,
            logit_error=behind[0].shown if behind else None,
            logit_tolerance=behind[0].decides if behind else None,
            error=error if margins else own.shown,
            rms_error=rms,
            excess=total,
            floor=scaled.floor if self._truth else None,
            spread=None if output.absolute and not behind else scaled.spread,
            constant=bool(scaled.constant.any()),
            truth="float64" if self._truth else "float32",
        )
        unproven = tuple(
            place for place, over, sure in zip(self._places, ~(per_image <= 1), known, strict=True) if over and not sure
        )
        errors = {
            tensor.name: np.concatenate(tensor.largest)
            for tensor in {id(t): t for t in (output, *self._behind)}.values()
        }
        return Judged(row, errors, unproven)

    def _margin(self, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        """Return how wrong each pixel is: by how much a class loses, or a unit vector differs times its length before."""
        if not chooses(self._task, self._signature):
            difference = np.abs(found.astype(np.float64) - wanted)
            lengths: Outputs = np.linalg.norm(upsampled(self._task, raw), axis=1, keepdims=True)
            return difference * lengths
        margin = np.zeros(wanted.shape)
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        for place in np.flatnonzero((found != wanted).reshape(len(wanted), -1).any(axis=1)):
            values = upsampled(self._task, raw[place : place + 1])[0]
            rows, columns = np.nonzero(found[place] != wanted[place])
            got, best = found[place, rows, columns].astype(int), wanted[place, rows, columns].astype(int)
            there = (got >= 0) & (got < len(values))
            lost = values[best, rows, columns] - values[np.where(there, got, 0), rows, columns]
            margin[place, rows, columns] = np.where(there, lost, np.inf)  # infinite for a class that there is not
        return margin

    def _agree(self, found: Outputs, wanted: Outputs) -> None:
        decoded = self._signature.outputs == "decoded"
        same = classes(self._task, found, decoded) == classes(self._task, wanted, decoded)
        self._choices += same.size
        self._alike += int(np.count_nonzero(same))


@dataclass(frozen=True)
class _Verdict:
    """How one tensor does: ``each`` image's excess, and the excess over all of them."""

    each: Floats
    overall: float
    allowed: Floats
    shown: float
    decides: float
    rms: float
    floor: float
    spread: float
    constant: npt.NDArray[np.bool_]


def _judge(tensor: _Tensor, tolerance: float, precision: str) -> _Verdict:
    scale, constant = tensor.scale
    floors = tensor.floor(np.zeros_like(scale))
    noise = np.maximum(floors, np.concatenate(tensor.steps))
    largest, squares = np.concatenate(tensor.largest), np.concatenate(tensor.squares)
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
    spread = tensor.spread.each if tensor.apart else tensor.spread.pooled
    return _Verdict(
        each,
        overall,
        allowed,
        float(shown),
        float(decides),
        float(rms),
        tensor.measured,
        float(spread.max()),
        constant,
    )


def _conditioning(floors: Floats, scale: Floats) -> Floats:
    """Return by how much less each image counts, ``(N,)``: 1 where it is no worse conditioned than most."""
    relative = (floors / scale).max(axis=1)
    usual = FLOORS * float(np.median(relative))
    return np.maximum(1.0, relative / usual) if usual > 0 else np.ones(len(relative))


def _channels(array: Outputs) -> int:
    return array.shape[1] if array.ndim in (2, 4) else 1  # a decoded depth has none


def noise_floor(task: Task, signature: Signature, expected: Expected) -> Floats:
    """Return the noise floor of a task's output on each image, ``(N, K)``; zeros where the truth is float32 itself."""
    comparison = Comparison(task, signature)
    own = expected.outputs(task)
    comparison.add(own, expected, 0, len(expected))
    judged = comparison.judged("", 1.0)
    return judged.errors.get(task.name, np.zeros((len(expected), 1)))


def chooses(task: Task, signature: Signature) -> bool:
    """Return whether a task's output holds class indices."""
    return signature.outputs == "decoded" and task.kind == "segmentation" and task.argmax


def has_margins(task: Task, signature: Signature) -> bool:
    """Return whether errors of a task's output are judged by how sure the network is (:func:`.expected.margins`)."""
    return chooses(task, signature) or (signature.outputs == "decoded" and task.kind == "normals")


def classes(task: Task, values: Outputs, decoded: bool) -> npt.NDArray[Any]:
    """Return the class that each row of values, or each pixel, chooses; of a binary task, whether it is the positive one.

    Args:
        task: a classification or segmentation.
        values: ``(N, size)``; of a segmentation ``(N, size, h, w)``, or the indices themselves.
        decoded: whether they are probabilities or, of a segmentation, what a decoded graph gives; otherwise the network's
            own outputs.
    """
    if task.kind == "segmentation" and decoded and task.argmax:
        return values
    if task.kind != "binary":
        return np.asarray(values.argmax(axis=1))
    if decoded or task.gives_probabilities:
        return np.asarray(values[:, -1] >= task.threshold)
    threshold = np.log(task.threshold / (1 - task.threshold))
    return np.asarray((values[:, -1] - values[:, 0] if values.shape[1] > 1 else values[:, 0]) >= threshold)
