"""What ``mtl-calibrate`` and ``mtl-export`` share on the command line: options of INT8, what they need, and an exit code."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.manifest import Bundle
from mtl_deploy.runtime.errors import OptionError

from .options import CHOICES, SAMPLES, Int8Options

MEASURES = True
"""Whether graphs are measured where nobody says otherwise."""
UNDECIDED = 3
"""Exit code where images cannot decide."""


def add_calibration_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options that ``mtl-calibrate`` and ``mtl-export`` share."""
    group.add_argument(
        "--calibration-data",
        type=Path,
        metavar="PATH",
        help="real images: a folder, a list file, .npy, .npz, or a UTKFace folder, with labels in the file names",
    )
    group.add_argument(
        "--labels",
        type=Path,
        metavar="PATH",
        help="the truth: a CSV file with a column 'file' and one column per task, a folder (a map per image; pairs of images), or "
        "a JSON file in COCO's format",
    )
    group.add_argument(
        "--calibration-samples",
        type=int,
        metavar="N",
        help=f"use at most this many images (default: {SAMPLES})",
    )
    group.add_argument(
        "--calibration-method",
        choices=CHOICES,
        default="auto",
        help="how ranges are chosen (default: auto, the method with the least error)",
    )
    group.add_argument(
        "--weight-bits",
        type=int,
        choices=(7, 8),
        default=8,
        help="bits of the weights in int8-cpu.onnx; 7 for x86 without VNNI",
    )
    group.add_argument(
        "--max-drop",
        metavar="TASK=DROP,...",
        help="what each task's metric may lose, such as age=0.1,gender=0.5%%; or one figure for all tasks",
    )
    group.add_argument(
        "--no-measure",
        action="store_true",
        help="do not measure how fast the graphs run on this machine (a few seconds), by which load() chooses the graph",
    )


def int8_options(arguments: argparse.Namespace, *, seed: int = 0) -> Int8Options:
    """Return the options for making INT8 graphs.

    Raises:
        OptionError: a value cannot be used.
    """
    return Int8Options(
        method=arguments.calibration_method,
        weight_bits=arguments.weight_bits,
        budgets=arguments.max_drop,
        samples=SAMPLES if arguments.calibration_samples is None else arguments.calibration_samples,
        seed=seed,
        threads=arguments.threads,
        opset=arguments.opset,
        measure=MEASURES and not arguments.no_measure,
    )


def require_libraries() -> None:
    """Check that the libraries that calibration needs are installed.

    Raises:
        OptionError: one is missing; the message names it and says how to install it.
    """
    for name in ("onnx", "onnx_ir", "onnxruntime"):
        if find_spec(name) is None:
            raise OptionError(
                f"mtl-calibrate needs {name}, which is not installed: pip install 'mtl-deploy[runtime,calibration]'"
            )


def budget_exit_code(bundle: Bundle) -> int:
    """Return 3 where the images could not decide whether a budget is met, and say so on standard error; otherwise 0."""
    budgets = bundle.manifest.calibration.get("budgets", {})
    if budgets.get("outcome") != "undecided":
        return 0
    sys.stderr.write(f"{budgets['summary']}\n")
    return UNDECIDED


def print_json(document: dict[str, Any]) -> None:
    """Print a document as JSON on standard output."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
