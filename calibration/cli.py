"""``mtl-calibrate``: INT8 graphs for an existing bundle, with what they cost every task."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mtl_deploy.runtime.bundle import SUFFIX, Bundle
from mtl_deploy.runtime.console import Progress, parser, run_command
from mtl_deploy.runtime.errors import OptionError

from .options import CHOICES, SAMPLES, Int8Options

_DESCRIPTION = """\
Quantize a bundle's network to INT8 on real images, once for TensorRT and once for processors, and measure every task at every
precision on images held apart. Needs neither PyTorch nor a GPU."""

_EPILOG = """\
examples:
  mtl-calibrate model.mtl --calibration-data UTKFace/
      labels are in the file names: mean absolute error and accuracy of each task, before and after
  mtl-calibrate model.mtl --calibration-data photos/ --labels labels.csv --max-drop age=0.1,gender=0.5%,race=0.5%
      keeps in higher precision the fewest layers that bring every task within its budget
  mtl-calibrate model.mtl --calibration-data photos/
      without labels: agreement and error against fp32

exit codes: 0 done; 1 a budget cannot be met, or the work failed; 2 input that cannot be used; 130 interrupted.
On any of the last three the bundle is as it was."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-calibrate`` and return its exit code."""
    return run_command(lambda: _calibrate(_parser().parse_args(arguments)))


def add_calibration_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options that ``mtl-calibrate`` and ``mtl-export`` share."""
    group.add_argument(
        "--calibration-data",
        type=Path,
        metavar="PATH",
        help="real images: a folder, a list file, .npy, .npz, or a UTKFace folder, whose names hold labels",
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="CSV file: column file, and a column a task")
    group.add_argument(
        "--calibration-samples",
        type=int,
        default=SAMPLES,
        metavar="N",
        help=f"images used at most (default: {SAMPLES})",
    )
    group.add_argument(
        "--calibration-method",
        choices=CHOICES,
        default="auto",
        help="of choosing ranges (default: auto, the least error)",
    )
    group.add_argument(
        "--weight-bits", type=int, choices=(7, 8), default=8, help="of the processors' graph; 7 where x86 has no VNNI"
    )
    group.add_argument(
        "--max-drop",
        metavar="TASK=DROP,...",
        help="budget of each task's metric, such as age=0.1,gender=0.5%%; one for all",
    )


def int8_options(arguments: argparse.Namespace, *, seed: int = 0) -> Int8Options:
    """Return how INT8 graphs are to be made.

    Raises:
        OptionError: a value cannot be used.
    """
    return Int8Options(
        method=arguments.calibration_method,
        weight_bits=arguments.weight_bits,
        budgets=arguments.max_drop,
        samples=arguments.calibration_samples,
        seed=seed,
        threads=arguments.threads,
        opset=arguments.opset,
    )


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-calibrate", _DESCRIPTION, _EPILOG)
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME.mtl, with its fp32 graph")
    made.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="another bundle to write (default: BUNDLE itself)"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace the bundle at --output")
    made.add_argument("--json", action="store_true", help="print the accuracy and the calibration as JSON")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    add_calibration_arguments(made.add_argument_group("calibration"))
    made.add_argument(
        "--opset", type=int, choices=(17,), help="17: for TensorRT 8.6, with FP32 around INT8 (default: 19, with FP16)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the sample of images (default: 0)")
    made.add_argument("--threads", type=int, metavar="N", help="of ONNX Runtime (default: one a core)")
    return made


def _calibrate(arguments: argparse.Namespace) -> int:
    if arguments.calibration_data is None:
        raise OptionError(
            "INT8 needs real images to find ranges on: pass --calibration-data with a folder of them, a list, .npy or .npz; 512 to "
            "1024 like those that the network will see serve well"
        )
    for name in ("onnx", "onnx_ir", "onnxruntime"):
        if find_spec(name) is None:
            raise OptionError(
                f"mtl-calibrate needs {name}, which is not installed: pip install 'mtl-deploy[runtime,calibration]'"
            )
    from .report import report
    from .update import calibrate_bundle

    output = arguments.output
    if output is not None and output.suffix != SUFFIX:
        output = output / arguments.bundle.resolve().name
    options = int8_options(arguments, seed=arguments.seed)
    bundle: Bundle = calibrate_bundle(
        arguments.bundle,
        arguments.calibration_data,
        options,
        labels=arguments.labels,
        output=output,
        force=arguments.force,
        progress=Progress(quiet=arguments.quiet),
    )
    if arguments.json:
        document = {
            "bundle": str(bundle.path),
            "accuracy": bundle.manifest.accuracy,
            "calibration": bundle.manifest.calibration,
        }
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(f"{bundle.path}\n{report(bundle)}")
    return 0
