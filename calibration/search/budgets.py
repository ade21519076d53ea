"""What each task may lose to a lower precision: the text of ``--max-drop`` as one figure per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

_LARGEST_SHARE = 0.1
"""Largest drop of an accuracy without a percent sign: ``0.5`` is more likely to mean half a point than half of all images."""


def parse_budgets(text: str, tasks: Sequence[Task], reference: Mapping[str, float] | None = None) -> dict[str, float]:
    """Read what each task may lose: ``age=0.1,gender=0.5%``, or one figure for all.

    A regression may gain so much mean absolute error, in its unit; with ``%`` it is a share of its error in high precision. A class
    task may lose so much accuracy, as a share of the images: ``0.5%`` or ``0.005``; a segmentation so much mean IoU. Depth may gain
    so much root mean square error, in its unit, and normals so much mean angular error, in degrees; with ``%`` a share of it.

    Args:
        text: the option's value.
        tasks: of the network.
        reference: by task, the error in high precision of a regression, depth or normals; needed for figures with ``%``.

    Returns:
        by task, the drop allowed, as an absolute figure. Tasks that are not named are left out: they may lose any amount.

    Raises:
        OptionError: the text is malformed, a task is unknown or named twice, or a figure cannot be used.
    """
    known = {task.name: task for task in tasks}
    if "=" not in text:
        return {name: _allowed(text, task, reference or {}) for name, task in known.items()}
    budgets: dict[str, float] = {}
    for part in text.split(","):
        name, equals, figure = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise OptionError(f"max drop {part.strip()!r}: write TASK=FIGURE, or one figure for all tasks")
        if name not in known:
            raise OptionError(f"max drop: no task is called {name!r}; the tasks are {', '.join(known)}")
        if name in budgets:
            raise OptionError(f"max drop: {name!r} is named twice; name each task once")
        budgets[name] = _allowed(figure, known[name], reference or {})
    return budgets


def check_budgets(text: str, tasks: Sequence[Task]) -> None:
    """Check the text before any work: tasks that do not exist, and figures that cannot be used.

    Args:
        text: the option's value, as :func:`parse_budgets` reads it.
        tasks: of the network.

    Raises:
        OptionError: see :func:`parse_budgets`.
    """
    parse_budgets(text, tasks, dict.fromkeys(_names(tasks), 1.0))  # whether there are labels for a % is not known yet


def error_shares(text: str, tasks: Sequence[Task]) -> dict[str, float]:
    """Return by task the share of its own error that it may gain, where the figure has a ``%`` and is not a share of images.

    Args:
        text: the option's value, as :func:`parse_budgets` reads it.
        tasks: of the network.
    """
    with_error, without = (parse_budgets(text, tasks, dict.fromkeys(_names(tasks), error)) for error in (1.0, 0.0))
    return {name: allowed for name, allowed in with_error.items() if allowed != without[name]}


def _names(tasks: Sequence[Task]) -> list[str]:
    return [task.name for task in tasks]


def _allowed(figure: str, task: Task, reference: Mapping[str, float]) -> float:
    """Read one figure, with or without a percent sign."""
    text = figure.strip()
    percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise OptionError(f"max drop of {task.name}: {text!r} is not a figure of 0 or more, such as 0.1 or 0.5%")
    kind = kind_of(task)
    if not kind.share:
        if percent and task.name not in reference:
            raise OptionError(
                f"max drop of {task.name}: {text!r} of its error needs labels; give it in "
                f"{(kind.unit(task) if kind.labelled else None) or 'its unit'}, without %"
            )
        return value / 100 * reference[task.name] if percent else value
    if not percent and value > _LARGEST_SHARE:
        raise OptionError(
            f"max drop of {task.name}: {text!r} is a share of all images; write {text}% for percentage points"
        )
    return value / 100 if percent else value
