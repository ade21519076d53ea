"""``mtl-calibrate compare``: its arguments and its output."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import PRECISIONS
from mtl_deploy.runtime.console.command import Progress, parser
from mtl_deploy.runtime.console.completion import offer
from mtl_deploy.runtime.console.subcommands import Subcommand
from mtl_deploy.runtime.errors import OptionError

from .command_line import print_json, require_libraries
from .options import require_threads

_DESCRIPTION = """\
Compare two bundles, such as two training runs, on the same labelled images: each task's metrics, the difference in the main
metric with its paired 95 % interval, and which bundle is better if the interval excludes 0. Writes nothing."""

_EPILOG = """\
examples:
  mtl-calibrate compare before.mtl after.mtl --calibration-data photos/ --labels labels.csv
  mtl-calibrate compare a.mtl b.mtl --calibration-data UTKFace/ --precision fp16
  mtl-calibrate compare a.mtl b.mtl --calibration-data photos/ --labels labels/ --precision fp32,int8-cpu
      the first's fp32 graph against the second's int8-cpu graph

exit codes: 0 done, whichever bundle is better; 1 the work failed; 2 bundles whose tasks or labels differ, or input that cannot be
used; 130 interrupted (143 by TERM, 129 by HUP)."""


def subcommand() -> Subcommand:
    """Return what ``mtl-calibrate compare`` reads and does."""
    made = parser("mtl-calibrate compare", _DESCRIPTION, _EPILOG)
    _add_arguments(made)
    return Subcommand(made, _compare, "compare two bundles on the same labelled images")


def _add_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("first", type=Path, metavar="FIRST.mtl", help="a bundle: the one that SECOND is compared with")
    made.add_argument("second", type=Path, metavar="SECOND.mtl", help="another bundle with the same tasks")
    made.add_argument(
        "--calibration-data",
        type=Path,
        metavar="PATH",
        required=True,
        help="real images: a folder, a list file, .npy, .npz, or a UTKFace folder; all images are measured on",
    )
    made.add_argument(
        "--labels",
        type=Path,
        metavar="PATH",
        help="the truth: a CSV file with a column 'file' and one column per task, a folder (a map per image; pairs of images), or "
        "a JSON file in COCO's format",
    )
    precision = made.add_argument(
        "--precision",
        metavar="P[,P]",
        help=f"{', '.join(PRECISIONS)}; two: for the first and for the second (default: the highest that both have)",
    )
    offer(precision, PRECISIONS, sign=",")
    made.add_argument(
        "--calibration-samples", type=int, metavar="N", help="use at most this many images (default: all)"
    )
    made.add_argument("--json", action="store_true", help="print the comparison as JSON")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    made.add_argument("--seed", type=int, default=0, help="seed for drawing images and for the intervals (default: 0)")
    made.add_argument("--threads", type=int, metavar="N", help="ONNX Runtime's threads (default: one per core)")


def _compare(arguments: argparse.Namespace) -> int:
    precisions = _precisions(arguments.precision)
    require_threads(arguments.threads)
    require_libraries()
    from .compare import compare_bundles

    found = compare_bundles(
        (arguments.first, arguments.second),
        arguments.calibration_data,
        labels=arguments.labels,
        precisions=precisions,
        samples=arguments.calibration_samples,
        seed=arguments.seed,
        threads=arguments.threads,
        progress=Progress(quiet=arguments.quiet),
    )
    if arguments.json:
        print_json(found.to_dict())
    else:
        sys.stdout.write(found.text())
    return 0


def _precisions(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not set(parts) <= set(PRECISIONS):
        raise OptionError(
            f"--precision {text}: write one of {', '.join(PRECISIONS)}, or two: one for the first bundle, one for the second"
        )
    return parts[0], parts[-1]
