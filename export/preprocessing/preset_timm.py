"""The preprocessing that timm records in a checkpoint: a ``pretrained_cfg`` of plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import torch

from mtl_deploy.export.options.images import DEFAULT_SIZE, INTERPOLATIONS, Channels
from mtl_deploy.runtime.bundle.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Fit, numbers, order_of
from mtl_deploy.runtime.errors import CheckpointError, OptionError

from .preset import Preset

CONFIG_KEYS = ("pretrained_cfg", "default_cfg")  # timm's name, and the one that it had before 0.6
_TELLS = frozenset(("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"))
_CROP_PCT = 0.875  # timm/data/constants.py, DEFAULT_CROP_PCT
_DEPTH = 4  # of dicts in dicts; a pickle can hold a dict that holds itself

Config = Mapping[str, Any]


def find_config(checkpoint: object) -> Config | None:
    """Return the ``pretrained_cfg`` that a checkpoint holds: beside its weights, in a nested dict, or on a pickled network.

    Args:
        checkpoint: what ``torch.load`` returned.

    Returns:
        The configuration; None if there is none, or several that differ.
    """
    found = [dict(config) for config in _configs(checkpoint, _DEPTH)]
    return found[0] if found and all(_told(one) == _told(found[0]) for one in found) else None


def _told(config: Config) -> dict[str, str]:
    return {key: repr(value) for key, value in config.items() if key in _TELLS}


def _configs(value: object, depth: int) -> Iterator[Config]:
    if isinstance(value, torch.nn.Module):
        for module in value.modules():
            yield from (held for held in map(vars(module).get, CONFIG_KEYS) if _tells(held))
    elif isinstance(value, Mapping) and depth:
        for key, held in value.items():
            if key in CONFIG_KEYS and _tells(held):
                yield held
            elif not isinstance(held, torch.Tensor):
                yield from _configs(held, depth - 1)


def _tells(value: object) -> TypeGuard[Config]:
    return isinstance(value, Mapping) and bool(_TELLS & value.keys())


def timm_preset(config: Config) -> Preset:
    """Return what a ``pretrained_cfg`` says, read as timm reads it.

    Method: timm's ``data/config.py`` (``resolve_data_config``: the defaults are 224x224, bicubic, 0.875, ImageNet's mean and
    std) and ``data/transforms_factory.py`` (``transforms_imagenet_eval``): images are resized to ``floor(size / crop_pct)`` and
    their centre is cut out; ``crop_mode`` ``center`` resizes the shorter side, ``squash`` both, ``border`` the longer one with
    a border in the mean colour (there a side with half a pixel can be rounded the other way).

    Raises:
        CheckpointError: timm could not read a value either.
    """
    source = "the checkpoint's pretrained_cfg (timm)"
    try:
        channels, height, width = (int(side) for side in config.get("input_size") or (3, *DEFAULT_SIZE))
        share = float(config.get("crop_pct") or _CROP_PCT)
        mode = str(config.get("crop_mode") or "center")
        interpolation = str(config.get("interpolation") or "bicubic")
        mean = _channels(config.get("mean") or IMAGENET_MEAN)
        std = _channels(config.get("std") or IMAGENET_STD)
        before = (math.floor(height / share), math.floor(width / share))
        order_of(channels, channels)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, OptionError) as error:
        raise CheckpointError(f"{source} cannot be read ({error}); remove or correct it") from error
    lacking = {}
    for option, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            lacking[option] = (
                f"its input_size has {channels} channel{'s' * (channels > 1)}, its {option} {numbers(len(values))}"
            )
    if interpolation not in INTERPOLATIONS:
        lacking["interpolation"] = f"its interpolation {interpolation!r} is not one of {', '.join(INTERPOLATIONS)}"
    fit: Fit | None = "crop"
    resize_to: tuple[int, ...] | None = (before[0],) if mode == "center" else before
    if mode in ("squash", "border") and before == (height, width):
        fit, resize_to = ("stretch" if mode == "squash" else "letterbox"), None
    elif mode not in ("center", "squash") or (mode == "center" and before[0] != before[1]):
        fit = resize_to = None
        lacking["fit"] = (
            f"its crop_mode {mode!r} with crop_pct {share:g} for {height}x{width} is neither a stretch, a letterbox nor a crop "
            "after resizing the shorter side"
        )
    return Preset(
        size=(height, width),
        fit=fit,
        resize_to=resize_to,
        channels=None if channels == 3 else order_of(channels, channels),
        interpolation=interpolation if interpolation in INTERPOLATIONS else None,
        mean=mean,
        std=std,
        source=source,
        lacking=lacking,
    )


def _channels(values: Any) -> Channels:
    return tuple(float(value) for value in values)
