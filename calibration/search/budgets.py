"""What each task may lose to a lower precision: the text of ``--max-drop`` as figures a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

_LARGEST_SHARE = 0.1
"""Of an accuracy, for budgets without a percent sign: ``0.5`` is more likely half a point than half of all images."""


def parse_budgets(text: str, tasks: Sequence[Task], reference: Mapping[str, float] | None = None) -> dict[str, float]:
    """Read what each task may lose: ``age=0.1,gender=0.5%``, or one figure for all.

    A regression's figure is in its unit, more mean absolute error; with ``%`` it is a share of the error that it has in high
    precision. A class task's figure is a share of the images, less accuracy: ``0.5%`` or ``0.005``; a segmentation's is less mean
    IoU. Depth's is in its unit, more root mean square error, and normals' in degrees, more mean angular error; with ``%`` a share.

    Args:
        text: the option's value.
        tasks: of the network.
        reference: by task: the error in high precision, for a regression, depth or normals whose figure has a ``%``.

    Returns:
        by task: the drop allowed, absolute. Tasks that are not named are left out: they may lose anything.

    Raises:
        OptionError: the text is malformed, a task is unknown or named twice, a figure cannot be used.
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


def error_shares(text: str, tasks: Sequence[Task]) -> dict[str, float]:
    """Return by task the share of its own error that it may lose, where the figure has a ``%`` and is no share of images.

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
    if task.kind in ("regression", "depth", "normals"):
        if percent and task.name not in reference:
            raise OptionError(
                f"max drop of {task.name}: {text!r} of its error needs labels; give it in "
                f"{'degrees' if task.kind == 'normals' else task.unit or 'its unit'}, without %"
            )
        return value / 100 * reference[task.name] if percent else value
    if not percent and value > _LARGEST_SHARE:
        raise OptionError(
            f"max drop of {task.name}: {text!r} is a share of all images; write {text}% for percent points"
        )
    return value / 100 if percent else value
