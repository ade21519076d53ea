"""The preprocessing of a graph that takes pixels and normalises them itself."""

from __future__ import annotations

from dataclasses import replace

from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing, order_of
from mtl_deploy.runtime.errors import OptionError


def as_pixels(options: Options, channels: int) -> Preprocessing:
    """Return what was asked for, with a normalisation that leaves pixels from 0 to 255 as they are.

    Args:
        options: what was asked for.
        channels: that the graph takes.

    Raises:
        OptionError: another normalisation was asked for.
    """
    stated = options.stated
    wanted = options.preprocessing
    other = (
        (wanted.mean, wanted.std) != ((0.0,) * channels, (1 / 255,) * channels)
        if stated is None
        else bool(stated.mean or stated.std or stated.transform)
    )
    if other:
        raise OptionError(
            f"{options.checkpoint} takes pixels (uint8) and normalises them itself, so --mean, --std and --transform do not apply; "
            "leave them out"
        )
    order = wanted.order if wanted.channel_count == channels else order_of(None, channels)
    return replace(wanted, mean=(0.0,) * channels, std=(1 / 255,) * channels, channels=order)
