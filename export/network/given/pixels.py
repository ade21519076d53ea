"""The preprocessing of a graph that takes pixels and normalises them itself."""

from __future__ import annotations

from dataclasses import replace

from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import OptionError

_MEAN, _STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


def as_pixels(options: Options) -> Preprocessing:
    """Return what was asked for, with a normalisation that leaves pixels from 0 to 255 as they are.

    Raises:
        OptionError: another normalisation was asked for.
    """
    stated = options.stated
    wanted = options.preprocessing
    other = (
        (wanted.mean, wanted.std) != (_MEAN, _STD)
        if stated is None
        else bool(stated.mean or stated.std or stated.transform)
    )
    if other:
        raise OptionError(
            f"{options.checkpoint} takes pixels (uint8) and normalises them itself, so --mean, --std and --transform do not apply; "
            "leave them out"
        )
    return replace(wanted, mean=_MEAN, std=_STD)
