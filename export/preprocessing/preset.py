"""Preprocessing from several sources: what the user said wins, then what a library's preset says, then the defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mtl_deploy.export.options.images import DEFAULT_SIZE, Described, Stated
from mtl_deploy.runtime.bundle.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    count_of,
    numbers,
    order_of,
    shown,
)
from mtl_deploy.runtime.errors import OptionError


@dataclass(frozen=True)
class Preset(Described):
    """What a library's preset says.

    Attributes:
        source: its name, for people.
        lacking: by attribute, why what the preset says about it cannot be expressed.
        remark: what a user should know about it; empty: nothing.
        any_size: whether ``size`` is only a default, so that another size does not contradict the preset.
    """

    source: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    any_size: bool = False


_OPTIONS = {
    "size": "--image-size",
    "fit": "--fit",
    "resize_to": "--resize-to",
    "interpolation": "--interpolation",
    "channels": "--channels",
    "mean": "--mean",
    "std": "--std",
}


def combine(stated: Stated, preset: Preset | None = None) -> tuple[Preprocessing, tuple[str, ...]]:
    """Combine what was said into one preprocessing.

    Args:
        stated: takes precedence over the preset.
        preset: takes precedence over the defaults; None: there is none.

    Returns:
        The preprocessing, and notes for people: what came from the preset, and where it was contradicted.

    Raises:
        OptionError: the parts do not fit together, or the preset cannot be expressed and the user did not say what to use instead.
    """
    given = preset or Preset()
    taken, against = [], []
    values: dict[str, Any] = {}
    for part in fields(Described):
        own, other = getattr(stated, part.name), getattr(given, part.name)
        if part.name in ("mean", "std"):
            other = _in_order(other, values["channels"])
        if part.name == "resize_to" and values["fit"] != "crop":
            other = None  # only a crop has one; a note already says that another fit was chosen
        if own is None and part.name in given.lacking:
            raise OptionError(f"{given.source}: {given.lacking[part.name]}; choose with {_OPTIONS[part.name]}")
        values[part.name] = other if own is None else own
        if own is None and other is not None:
            taken.append(_told(part.name, other))
        elif own is not None and other is not None and not _alike(own, other):
            if part.name == "size" and given.any_size:
                continue
            option = _OPTIONS[part.name]
            against.append(f"{option} {_written(own)} overrides {given.source}, which says {_written(other)}")
    height, width = values["size"] or DEFAULT_SIZE
    order = order_of(values["channels"], len(values["mean"] or IMAGENET_MEAN))
    mean = values["mean"] or _in_order(IMAGENET_MEAN, order)
    std = values["std"] or _in_order(IMAGENET_STD, order)
    for option, known in (("--mean", mean), ("--std", std)):
        if len(known) != count_of(order):
            whose = f"what {given.source} says is" if given.source else "the default is ImageNet's,"
            raise OptionError(
                f"--channels {order}: give {option}, {numbers(count_of(order))} such as {shown([0.5] * count_of(order))}; "
                f"{whose} for {len(known)} channels"
            )
    preprocessing = Preprocessing(
        height=height,
        width=width,
        mean=mean,
        std=std,
        channels=order,
        input=stated.input,
        fit=values["fit"] or "stretch",
        multiple=stated.multiple,
        resize_to=values["resize_to"] or (),
        interpolation=values["interpolation"] or "bilinear",
        source=stated.source,
    )
    notes = []
    if preset is not None:
        remark = f"; {given.remark}" if given.remark else ""
        notes.append(f"preprocessing from {given.source}: {', '.join(taken) or 'nothing'}{remark}")
    return preprocessing, (*notes, *against)


def _in_order(values: Any, order: Any) -> Any:
    """Return a mean or std for R, G and B in the network's order."""
    return values[::-1] if values is not None and order == "bgr" else values


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _told(part: str, value: Any) -> str:
    name = {"size": "image size", "resize_to": "resized to"}.get(part, part)
    return f"{name} {_written(value)}{' (shorter side)' if part == 'resize_to' and len(value) == 1 else ''}"


def _written(value: str | int | Sequence[float]) -> str:
    """Return a value as its option takes it."""
    if isinstance(value, (str, int)):
        return str(value)
    if all(isinstance(number, int) for number in value) and len(value) < 3:
        return "x".join(map(str, value))
    return shown(value)
