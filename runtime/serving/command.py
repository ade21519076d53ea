"""``mtl-infer --ray``: options and output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import ImageError, OptionError

_REFUSED = ("show", "json", "box", "boxes", "layout", "provider", "verbose")


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Add the group ``many images``."""
    group = parser.add_argument_group("many images (extra ray)")
    group.add_argument(
        "--ray",
        action="store_true",
        help="label a folder of images, or Parquet files with them, on a Ray cluster; --output names the folder for the Parquet "
        "files, where an earlier run that was stopped goes on",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="with --ray: how many (default: as many as the cluster allows)"
    )


def label_command(arguments: argparse.Namespace, tasks: Sequence[str] | None) -> int:
    """Label images on Ray and print what was done.

    Raises:
        OptionError: options that do not fit.
        BackendError: Ray is not installed.
    """
    if len(arguments.images) != 1 or arguments.output is None:
        raise OptionError("--ray labels one folder or Parquet file and needs a place for the results: --output DIR")
    if given := next((name for name in _REFUSED if getattr(arguments, name)), None):
        raise OptionError(f"--ray labels whole images in image files; leave --{given} out")
    from .ray_data import BROKEN, label

    own = sys.stdout
    with redirect_stdout(sys.stderr):  # where Ray says at any time what happens to workers
        done = label(
            Path(arguments.model),
            Path(arguments.images[0]),
            Path(arguments.output),
            tasks=tasks,
            precision=arguments.precision,
            backend=arguments.backend,
            workers=arguments.workers,
            threads=arguments.threads or 1,
        )
    earlier = f", {done.resumed} of them from an earlier run" if done.resumed else ""
    own.write(f"{counted(done.images, 'image')} in {counted(done.parts, 'file')}{earlier}: {arguments.output}\n")
    if done.broken:
        sys.stderr.write(f"{counted(done.broken, 'image')} cannot be read: see {Path(arguments.output) / BROKEN}\n")
    return ImageError.exit_code if done.broken else 0
