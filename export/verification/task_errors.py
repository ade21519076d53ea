"""How far a graph's outputs for one task are from the truth.

The truth is the network in float64 on the images for which that was computed, and its float32 answer on the others. What is
compared are the task's output and the logits behind it (:func:`.expected.compared`), each by the rules of
:mod:`mtl_deploy.export.verification.tensor_errors`; class indices and unit vectors by margin
(:mod:`mtl_deploy.export.verification.margin_errors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.graph.sizes import images_at_once
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.verification import Row

from .expected import Expected, Outputs, compared
from .margin_errors import MarginErrors
from .tensor_errors import Floats, TensorErrors

_MOST = 8
_COPIES = 8  # what comparing a tensor takes, as a multiple of its size in float32


@dataclass(frozen=True)
class Judged:
    """A row, with what it was made from.

    Attributes:
        row: for the report.
        errors: by tensor ``(N, K)``: the largest error of each image, in the order of all samples.
        unproven: images that exceed what is allowed and whose float64 answer is not known, as (number of the sample, position).
    """

    row: Row
    errors: Mapping[str, Floats]
    unproven: tuple[tuple[int, int], ...]


class TaskErrors:
    """The errors of one task, gathered batch by batch."""

    def __init__(self, task: Task, signature: Signature) -> None:
        self._task, self._signature = task, signature
        output, *logits = compared(task, signature)
        decoded = signature.outputs == "decoded"
        scales = kind_of(task).scales(task, decoded=decoded)
        self._output = TensorErrors(output, apart=scales.apart, centred=scales.centred, absolute=scales.absolute)
        self._behind = [
            TensorErrors(name, scales.behind_apart, scales.behind_centred, of_sigmoid=scales.of_sigmoid)
            for name in logits
        ]
        self._margins = MarginErrors(task) if decoded and kind_of(task).by_margin(task) else None
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
            stop: the image after the last.
            sample: which of several sets of images this is.
        """
        truth = expected.outputs(self._task, start, stop, exact=True)
        own = expected.outputs(self._task, start, stop)
        kind = kind_of(self._task)
        exact = bool(expected.exact)
        known = expected.known[start:stop] if exact else np.zeros(stop - start, bool)
        self._truth |= exact
        self._places += [(sample, place) for place in range(start, stop)]
        self._known.append(known if exact else np.ones(stop - start, bool))  # without float64 there is nothing to ask
        found, wanted = actual[self._output.name], truth[self._output.name]
        if self._margins is not None:
            self._margins.add(found, wanted, truth[self._behind[0].name])
        for tensor in self._behind if self._margins is not None else (*self._behind, self._output):
            noise = expected.noise.get(tensor.name)
            shown = None if noise is None else noise[start:stop]
            viewed = [kind.view(self._task, by[tensor.name]) for by in (actual, truth, own)]
            tensor.add(viewed[0], viewed[1], viewed[2], known, shown)
        if kind.choosing:
            self._agree(found, wanted)

    def judged(self, path: str, tolerance: float, precision: str = "fp32") -> Judged:
        """Judge the errors.

        Args:
            path: the artifact's, for the row.
            tolerance: the error allowed, as a share of the spread.
            precision: of the artifact.
        """
        output = self._output if self._margins is None else self._behind[0]
        own = output.judged(tolerance, precision)
        behind = [tensor.judged(tolerance, precision) for tensor in self._behind]
        scaled = behind[0] if output.absolute and behind else own  # what is judged by its spread
        raw = scaled is not own or self._margins is not None or self._signature.outputs == "logits"
        learned = scaled.constant[: len(scaled.constant) - (kind_of(self._task).fixed(self._task) if raw else 0)]
        excess = [verdict.each for verdict in (own, *behind)]
        if self._margins is not None:
            margins = self._margins.judged(behind[0].allowed, precision)
            excess.append(margins.each)
            largest, error, decides, mean, rms = margins.error, margins.error, margins.decides, margins.mean, None
        else:
            largest, error, decides = float(np.concatenate(output.largest).max()), own.shown, own.decides
            mean, rms = output.sum / max(output.values, 1), own.rms
        per_image = np.max([part.reshape(len(part)) for part in excess], axis=0)
        overall = max((verdict.overall for verdict in (own, *behind)), key=lambda n: np.inf if np.isnan(n) else n)
        row = Row(
            artifact=path,
            task=self._task.name,
            samples=len(self._places),
            max_error=largest,
            mean_error=mean,
            tolerance=decides,
            agreement=self._alike / self._choices if self._choices else None,
            logit_error=behind[0].shown if behind else None,
            logit_tolerance=behind[0].decides if behind else None,
            error=error,
            rms_error=rms,
            excess=float(np.max([np.max(per_image), overall])),
            floor=scaled.floor if self._truth else None,
            spread=None if output.absolute and not behind else scaled.spread,
            constant=bool(learned.any()),
            truth="float64" if self._truth else "float32",
        )
        tensors = {id(tensor): tensor for tensor in (output, *self._behind)}.values()
        errors = {tensor.name: np.concatenate(tensor.largest) for tensor in tensors}
        return Judged(row, errors, self._unproven(per_image))

    def _unproven(self, excess: Floats) -> tuple[tuple[int, int], ...]:
        known = np.concatenate(self._known)
        over = ~(excess <= 1)  # NaN is over
        return tuple(place for place, bad, sure in zip(self._places, over, known, strict=True) if bad and not sure)

    def _agree(self, found: Outputs, wanted: Outputs) -> None:
        decoded = self._signature.outputs == "decoded"
        ours, theirs = (kind_of(self._task).chosen(self._task, each, decoded=decoded) for each in (found, wanted))
        same = ours == theirs
        self._choices += same.size
        self._alike += int(np.count_nonzero(same))


def compared_at_once(signature: Signature) -> int:
    """Return how many images' outputs to compare at once: float64 errors take several times the memory of large maps."""
    return max(images_at_once(None, signature, _COPIES * _MOST) // _COPIES, 1)


def noise_floor(task: Task, signature: Signature, expected: Expected) -> Floats:
    """Return the noise floor of a task's output on each image, ``(N, K)``; zeros where the truth is float32 itself."""
    errors = TaskErrors(task, signature)
    size = compared_at_once(signature)
    for start in range(0, len(expected), size):
        stop = min(start + size, len(expected))
        errors.add(expected.outputs(task, start, stop), expected, start, stop)
    return errors.judged("", 1.0).errors.get(task.name, np.zeros((len(expected), 1)))
