"""Which activation the network itself applies to each output: as declared, as found in its graph, and checked by its values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.activation import ACTIVATIONS, Activation
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ActivationWarning, TaskError

from .found import FoundActivation, find_activation

if TYPE_CHECKING:
    import onnx_ir as ir

Values = npt.NDArray[Any]
Rows = npt.NDArray[np.float64]

_OUTSIDE = 1e-5  # how far float32 probabilities may be outside the range from 0 to 1
_SUM = 1e-4  # how far the sum of float32 probabilities may be off 1; ten times that for exponentials of logarithms
_MOST = 1 << 14  # pixels that are looked at


def settle_activations(
    tasks: Sequence[Task], outputs: Sequence[ir.Value], values: Mapping[str, Values]
) -> tuple[tuple[Task, ...], list[str]]:
    """Set each task's activation: the declared one if graph and values agree with it; if none is declared, the one they show.

    Warns with :class:`~mtl_deploy.runtime.errors.ActivationWarning` where values look like probabilities and no operator
    explains it.

    Args:
        tasks: with their sizes.
        outputs: of the network's own graph, one for each task.
        values: PyTorch's outputs on the verification images, by task: ``(N, size)``, for dense tasks ``(N, size, h, w)``.

    Returns:
        The tasks, with an activation for each task with classes; and what a reader of the bundle should know, one sentence per
        task.

    Raises:
        TaskError: what is declared and what is found disagree, an output has parts with different activations, or one that no task
            can have.
    """
    settled, notes = [], []
    for task, output in zip(tasks, outputs, strict=True):
        if not task.of.of_classes:
            settled.append(task)
            continue
        kind = kind_of(task)
        found = _common([find_activation(value, axis) for value, axis in kind.activated(task, output)])
        rows = _rows(kind.activation_rows(task, values[task.name]))
        chosen = _undeclared(task, found, rows) if task.activation is None else _declared(task, found, rows)
        settled.append(replace(task, activation=chosen))
        if chosen != "none":
            notes.append(_note(settled[-1], found))
        elif task.activation is None and (doubt := _doubt(task, found, rows)) is not None:
            warnings.warn(doubt, ActivationWarning, stacklevel=2)
            notes.append(doubt)
    return tuple(settled), notes


def _common(founds: Sequence[FoundActivation]) -> FoundActivation:
    """Return what was found behind all parts of an output; mixed where that is not the same."""
    if len({found.form for found in founds}) == 1:
        return founds[0]
    listed = "; ".join(f"part {place}: {found.form or found.how}" for place, found in enumerate(founds))
    return FoundActivation(None, listed, mixed=True)


def describe(tasks: Sequence[Task], outputs: str) -> str:
    """Return a few words for a progress line: which outputs are not logits."""
    names = [f"{task.name} ({task.activation})" for task in tasks if task.applied != "none"]
    if not names:
        return "classes are logits" if any(task.of.of_classes for task in tasks) else ""
    plain = ", and --outputs logits gives them as they are" if outputs == "logits" else ""
    return f"already probabilities or their logarithms: {', '.join(names)}{plain}"


def _declared(task: Task, found: FoundActivation, rows: Rows) -> Activation:
    declared = task.applied
    agreed = found.form == declared or (declared == "softmax" and found.form == "sigmoid" and _sums_to_one(rows))
    by_values = declared in ("softmax", "log_softmax") and _fits(declared, rows)  # no accident makes all rows sum to 1
    if found.form is not None and not agreed and not (found.form == "none" and by_values):
        raise TaskError(
            f"task {task.name!r}: activation {declared} is declared, but the network's graph ends in {found.how}, which is "
            f"{found.form}; {_allowed(task, found.form)}"
        )
    if declared != "none" and not (_in_range(declared, rows) if agreed else _fits(declared, rows)):
        raise TaskError(
            f"task {task.name!r}: activation {declared} is declared, but on the verification images the network's values are "
            f"{_described(rows)}; correct the activation, or leave it out to have it detected"
        )
    return declared


def _undeclared(task: Task, found: FoundActivation, rows: Rows) -> Activation:
    if found.mixed:
        raise TaskError(
            f"task {task.name!r}: the output concatenates parts with different activations ({found.how}), so no single decoding "
            "is right for all of it; return each part as an output of its own, or say with activation=... which one applies to all"
        )
    if found.form == "log_sigmoid":
        raise TaskError(
            f"task {task.name!r}: the network's graph ends in {found.how}, the logarithm of one probability, which no kind of task "
            "takes; return the logit, or its sigmoid"
        )
    form = found.form
    if form is None or form == "none":
        return "none"
    if form == "sigmoid" and rows.shape[1] > 1 and _sums_to_one(rows):
        form = "softmax"  # p and 1 - p side by side
    if reason := _misfit(task, form):
        raise TaskError(f"task {task.name!r}: the network's graph ends in {found.how}: {reason}")
    if not _in_range(form, rows):
        raise TaskError(
            f"task {task.name!r}: the network's graph ends in {found.how}, but its values are {_described(rows)}; say with "
            "activation=... what it applies"
        )
    return form


def _misfit(task: Task, activation: Activation) -> str | None:
    return None if activation == "none" else task.of.misfit(task.size, activation)


def _doubt(task: Task, found: FoundActivation, rows: Rows) -> str | None:
    """Say that values look like probabilities although no operator explains it; None if they do not."""
    by_range = found.form is None and _misfit(task, "sigmoid") is None
    seems = _looks(rows, range_alone=by_range)
    if seems is None or _misfit(task, seems) is not None:
        return None
    return (
        f"task {task.name!r}: the network's values look like {_CALLED[seems]} ({_described(rows)}), but its graph ends in "
        f"{found.how}; they are taken as logits and decoded once more. If the network itself applies an activation, say so "
        f"with activation={seems}, otherwise with activation=none"
    )


_CALLED = {"sigmoid": "probabilities", "softmax": "probabilities", "log_softmax": "logarithms of probabilities"}


def _allowed(task: Task, form: str) -> str:
    if form == "none":
        return (
            "its outputs are logits: leave the activation out. If training applied it outside the network (as a loss does), the "
            "bundle's decoding applies it"
        )
    if form in ACTIVATIONS and _misfit(task, form) is None:
        return f"write activation={form}, or leave it out"
    return "no kind of task takes that; return the logits from the network"


def _note(task: Task, found: FoundActivation) -> str:
    source = f"its graph ends in {found.how}" if found.form not in (None, "none") else "as declared, by its values"
    given = {
        "softmax": "probabilities that sum to 1",
        "sigmoid": "one probability" if task.size == 1 else "one probability per class, which need not sum to 1",
        "log_softmax": "logarithms of probabilities",
    }[task.applied]
    return f"task {task.name!r}: the network itself applies {task.activation} ({source}); its output is {given}"


def _rows(values: Values) -> Rows:
    """Return ``(rows, size)``: one row per image, for maps one per pixel, of evenly spread pixels."""
    pixels = values.reshape(*values.shape[:2], -1)  # a vector has one
    step = max(len(values) * pixels.shape[2] // _MOST, 1)
    return np.moveaxis(pixels[:, :, ::step], 1, -1).reshape(-1, values.shape[1]).astype(np.float64)


def _in_range(activation: Activation, rows: Rows) -> bool:
    if activation == "log_softmax":
        return bool((rows <= _OUTSIDE).all())
    return bool(((rows >= -_OUTSIDE) & (rows <= 1 + _OUTSIDE)).all())


def _sums_to_one(rows: Rows) -> bool:
    return bool((np.abs(rows.sum(axis=1) - 1) <= _SUM).all())


def _fits(activation: Activation, rows: Rows) -> bool:
    """Return whether values could be what an activation gives."""
    if not _in_range(activation, rows):
        return False
    if activation == "softmax":
        return _sums_to_one(rows)
    return activation != "log_softmax" or bool((np.abs(np.exp(rows).sum(axis=1) - 1) <= 10 * _SUM).all())


def _looks(rows: Rows, *, range_alone: bool) -> Activation | None:
    """Return which activation values look like; None for logits, and for what looks so by accident: constants, and all 0 or 1.

    Args:
        rows: ``(rows, size)``.
        range_alone: whether the range from 0 to 1 is enough, although logits can lie there too.
    """
    distinct = len(np.unique(rows.round(6), axis=0))
    if distinct < min(3, len(rows)) or len(rows) < 2:
        return None
    if rows.shape[1] > 1:
        for activation in ("softmax", "log_softmax"):
            inside = (rows > 0) & (rows < 1) if activation == "softmax" else rows < 0
            if _fits(activation, rows) and inside.any():
                return activation
    inside = (rows > 0) & (rows < 1)
    return "sigmoid" if range_alone and _in_range("sigmoid", rows) and inside.mean() >= 0.5 else None


def _described(rows: Rows) -> str:
    sums = rows.sum(axis=1)
    text = f"from {rows.min():.3g} to {rows.max():.3g}"
    return text if rows.shape[1] == 1 else f"{text}, with rows that sum to {sums.min():.4g} to {sums.max():.4g}"
