"""``mtl-calibrate``: INT8 graphs for an existing bundle, and what they cost each task."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import SUFFIX, Bundle
from mtl_deploy.runtime.console.command import Progress, parser, run_command
from mtl_deploy.runtime.console.subcommands import dispatch
from mtl_deploy.runtime.errors import OptionError

from . import compare_cli
from .command_line import add_calibration_arguments, budget_exit_code, int8_options, print_json, require_libraries
from .options import require_threads

_DESCRIPTION = """\
Quantize a bundle's network to INT8 with real images, once for TensorRT and once for CPUs, and measure every task at every
precision on held-out images. Needs neither PyTorch nor a GPU."""

_EPILOG = """\
examples:
  mtl-calibrate model.mtl --calibration-data UTKFace/
      labels come from the file names: mean absolute error or accuracy of each task, before and after
  mtl-calibrate model.mtl --calibration-data photos/ --labels labels.csv --max-drop age=0.1,gender=0.5%,race=0.5%
      keeps as few layers as possible in higher precision, so that every task stays within its budget
  mtl-calibrate model.mtl --calibration-data photos/
      without labels: agreement with fp32, and the difference from it
  mtl-calibrate model.mtl --evaluate-only --calibration-data new/ --labels new.csv
      measures the bundle as it is on all images, and writes nothing
  mtl-calibrate compare before.mtl after.mtl --calibration-data photos/ --labels labels.csv
      two training runs, task by task; see mtl-calibrate compare --help

exit codes: 0 done; 1 a budget is missed, or the work failed; 2 input that cannot be used; 3 the images cannot decide whether a
budget is met: the bundle is written and says so; 130 interrupted (143 by TERM, 129 by HUP). After any code but 0 and 3 the bundle
is unchanged."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-calibrate`` or ``mtl-calibrate compare`` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    subcommands = {"compare": compare_cli.subcommand()}
    return run_command(lambda: dispatch(given, _options(), _operands, _run, subcommands))


def _run(arguments: argparse.Namespace) -> int:
    return _evaluate(arguments) if arguments.evaluate_only else _calibrate(arguments)


def _operands(made: argparse.ArgumentParser) -> None:
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME.mtl, with its fp32 graph")


def _options() -> argparse.ArgumentParser:
    made = parser("mtl-calibrate", _DESCRIPTION, _EPILOG)
    made.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write to this bundle instead (default: BUNDLE itself)"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace the bundle at --output")
    made.add_argument(
        "--evaluate-only",
        action="store_true",
        help="measure every precision that the bundle holds on all images; quantize nothing and write nothing",
    )
    made.add_argument("--json", action="store_true", help="print the accuracy and the calibration as JSON")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_calibration_arguments(made.add_argument_group("calibration"))
    made.add_argument(
        "--opset",
        type=int,
        choices=(17,),
        help="17: for TensorRT 8.6, with FP32 around the INT8 layers (default: 19, with FP16)",
    )
    made.add_argument("--seed", type=int, default=0, help="seed for drawing and splitting the images (default: 0)")
    made.add_argument("--threads", type=int, metavar="N", help="ONNX Runtime's threads (default: one per core)")
    return made


def _evaluate(arguments: argparse.Namespace) -> int:
    """Measure a bundle as it is."""
    changing = {
        "--output": arguments.output is not None,
        "--force": arguments.force,
        "--max-drop": arguments.max_drop is not None,
        "--calibration-method": arguments.calibration_method != "auto",
        "--weight-bits": arguments.weight_bits != 8,
        "--opset": arguments.opset is not None,
        "--no-measure": arguments.no_measure,
    }
    if given := [name for name, is_given in changing.items() if is_given]:
        raise OptionError(f"--evaluate-only makes no graphs and writes nothing: leave out {', '.join(given)}")
    if arguments.calibration_data is None:
        raise OptionError(
            "--evaluate-only needs images to measure on: pass --calibration-data with a folder of them, a list, .npy or .npz, and "
            "--labels where the truth is known"
        )
    require_threads(arguments.threads)
    require_libraries()
    from .measure import measure_bundle

    found = measure_bundle(
        arguments.bundle,
        arguments.calibration_data,
        labels=arguments.labels,
        samples=arguments.calibration_samples,
        seed=arguments.seed,
        threads=arguments.threads,
        progress=Progress(quiet=arguments.quiet),
    )
    if arguments.json:
        print_json(found.to_dict())
    else:
        sys.stdout.write(f"{found.bundle.path}\n{found.text()}")
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    if arguments.calibration_data is None:
        raise OptionError(
            "INT8 needs real images to find ranges on: pass --calibration-data with a folder of them, a list, .npy or .npz; 512 to "
            "1024 images like those that the network will see are enough"
        )
    require_libraries()
    from mtl_deploy.calibration.search.find_skip import MissedBudgetError
    from mtl_deploy.runtime.measured.choice import latest_here
    from mtl_deploy.runtime.measured.record import read

    from .report import report
    from .update import calibrate_bundle

    output = arguments.output
    if output is not None and output.suffix != SUFFIX:
        output = output / arguments.bundle.resolve().name
    options = int8_options(arguments, seed=arguments.seed)
    try:
        bundle: Bundle = calibrate_bundle(
            arguments.bundle,
            arguments.calibration_data,
            options,
            labels=arguments.labels,
            output=output,
            force=arguments.force,
            progress=Progress(quiet=arguments.quiet),
        )
    except MissedBudgetError as error:
        if arguments.json:  # nothing was written, but a program learns the outcome and its figures
            print_json({"bundle": None, "budgets": error.record})
        raise
    if arguments.json:
        document = {
            "bundle": str(bundle.path),
            "accuracy": bundle.manifest.accuracy,
            "calibration": bundle.manifest.calibration,
            "measured": None if (run := latest_here(read(bundle.path))) is None else run.to_dict(),
        }
        print_json(document)
    else:
        sys.stdout.write(f"{bundle.path}\n{report(bundle)}")
    return budget_exit_code(bundle)
