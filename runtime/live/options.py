"""The options of ``mtl-infer`` for videos, cameras and streams."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.streams.options import Drop

from .play import PlayOptions
from .raw import raw_format

_NEVER = "never"
_USUAL_MOST = 30.0  # seconds between two attempts, once a source had been open

NAMES = ("every", "drop", "reconnect", "raw", "stats")
"""Of the options that are for videos and live sources alone."""


def add_live_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    group = parser.add_argument_group("videos, cameras and streams")
    group.add_argument(
        "--every",
        action="append",
        metavar="TASK=N",
        help="compute this task only for every Nth frame; in between, its last value is given, with its age",
    )
    group.add_argument(
        "--drop",
        choices=get_args(Drop),
        help="which frame is dropped if they come too fast (default: oldest; videos and pipes wait)",
    )
    group.add_argument(
        "--raw",
        metavar="WxH:FORMAT",
        help="size and format of the frames that - reads: bgr, rgb, gray, nv12 or yuyv; such as 1280x720:bgr",
    )
    group.add_argument(
        "--reconnect",
        metavar="SECONDS",
        help="how a source is opened again that was lost or cannot be opened yet: after half a second, then after longer times, up "
        f"to SECONDS; or {_NEVER} (default: {_USUAL_MOST:g}, for a source that had been open)",
    )
    group.add_argument(
        "--stats",
        type=_seconds("--stats"),
        metavar="SECONDS",
        help="print the frame rate, latency and dropped frames every so many seconds, on standard error",
    )


def play_options(
    arguments: argparse.Namespace, show: Path | None, boxes: Sequence[Sequence[float]] | None
) -> PlayOptions:
    """Return what was asked for.

    Raises:
        OptionError: a value cannot be used.
    """
    reconnect = arguments.reconnect
    return PlayOptions(
        show=show,
        force=arguments.force,
        every=_rates(arguments.every or []),
        drop=arguments.drop,
        boxes=boxes,
        margin=arguments.margin,
        raw=None if arguments.raw is None else raw_format(arguments.raw),
        reconnect=_USUAL_MOST if reconnect is None else _most(reconnect),
        patient=reconnect not in (None, _NEVER),
        stats=arguments.stats,
    )


def _rates(given: Sequence[str]) -> dict[str, int]:
    rates = {}
    for text in given:
        name, separator, number = text.rpartition("=")
        if not separator or not number.isdecimal() or int(number) < 1:
            raise OptionError(f"--every {text}: write TASK=N, such as race=10 for every tenth frame")
        rates[name] = int(number)
    return rates


def _most(text: str) -> float | None:
    if text == _NEVER:
        return None
    try:
        return _seconds("--reconnect")(text)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"--reconnect {text}: {error}, or {_NEVER}") from error


def _seconds(option: str) -> Callable[[str], float]:  # noqa: ARG001 - argparse names it
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError("write a number of seconds above 0")
        return value

    return parse
