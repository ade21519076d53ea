"""``mtl-calibrate``: INT8 graphs for an existing bundle, with what they cost every task."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import SUFFIX, Bundle
from mtl_deploy.runtime.console.command import Progress, parser, run_command
from mtl_deploy.runtime.errors import OptionError

from .options import CHOICES, SAMPLES, Int8Options, require_threads

UNDECIDED = 3
"""Exit code where images cannot decide."""

_DESCRIPTION = """\
Quantize a bundle's network to INT8 on real images, once for TensorRT and once for processors, and measure every task at every
precision on images held apart. Needs neither PyTorch nor a GPU. `mtl-calibrate compare A.mtl B.mtl` sets two bundles side by
side."""

_EPILOG = """\
examples:
  mtl-calibrate model.mtl --calibration-data UTKFace/
      labels are in the file names: mean absolute error and accuracy of each task, before and after
  mtl-calibrate model.mtl --calibration-data photos/ --labels labels.csv --max-drop age=0.1,gender=0.5%,race=0.5%
      keeps in higher precision the fewest layers that bring every task within its budget
  mtl-calibrate model.mtl --calibration-data photos/
      without labels: agreement and error against fp32
  mtl-calibrate model.mtl --evaluate-only --calibration-data new/ --labels new.csv
      measures the bundle as it is, on all images, and writes nothing
  mtl-calibrate compare before.mtl after.mtl --calibration-data photos/ --labels labels.csv
      two training runs, task by task; see mtl-calibrate compare --help

exit codes: 0 done; 1 a budget is missed, or the work failed; 2 input that cannot be used; 3 the images cannot decide whether a
budget is met: the bundle is written and says so; 130 interrupted (143 by TERM, 129 by
HUP). But for 0 and 3, the bundle is as it was."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-calibrate`` or ``mtl-calibrate compare`` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:
        from . import compare_cli

        return compare_cli.main(given[1:])
    return run_command(lambda: _run(given))


def _run(given: Sequence[str]) -> int:
    if any(word.startswith("--print-completion") for word in given):
        _completion_parser().parse_args(given)
    arguments = _parser().parse_args(given)
    return _evaluate(arguments) if arguments.evaluate_only else _calibrate(arguments)


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
        samples=SAMPLES if arguments.calibration_samples is None else arguments.calibration_samples,
        seed=seed,
        threads=arguments.threads,
        opset=arguments.opset,
    )


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-calibrate", _DESCRIPTION, _EPILOG)
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME.mtl, with its fp32 graph")
    _add_options(made)
    return made


def _completion_parser() -> argparse.ArgumentParser:
    """Return what completion scripts are made from: the options, and the subcommand in the place of a bundle."""
    from . import compare_cli

    made = parser("mtl-calibrate", _DESCRIPTION, _EPILOG)
    _add_options(made)
    compare = made.add_subparsers().add_parser("compare", help="two bundles side by side")
    compare_cli.add_arguments(compare)
    return made


def _add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="another bundle to write (default: BUNDLE itself)"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace the bundle at --output")
    made.add_argument(
        "--evaluate-only",
        action="store_true",
        help="measure every precision that the bundle holds, on all images; quantize and write nothing",
    )
    made.add_argument("--json", action="store_true", help="print the accuracy and the calibration as JSON")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    add_calibration_arguments(made.add_argument_group("calibration"))
    made.add_argument(
        "--opset", type=int, choices=(17,), help="17: for TensorRT 8.6, with FP32 around INT8 (default: 19, with FP16)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the sample of images (default: 0)")
    made.add_argument("--threads", type=int, metavar="N", help="of ONNX Runtime (default: one a core)")


def require_libraries() -> None:
    """Refuse to go on where a library is missing.

    Raises:
        OptionError: names it, and how to install it.
    """
    for name in ("onnx", "onnx_ir", "onnxruntime"):
        if find_spec(name) is None:
            raise OptionError(
                f"mtl-calibrate needs {name}, which is not installed: pip install 'mtl-deploy[runtime,calibration]'"
            )


def _evaluate(arguments: argparse.Namespace) -> int:
    """Measure a bundle as it is."""
    changing = {
        "--output": arguments.output is not None,
        "--force": arguments.force,
        "--max-drop": arguments.max_drop is not None,
        "--calibration-method": arguments.calibration_method != "auto",
        "--weight-bits": arguments.weight_bits != 8,
        "--opset": arguments.opset is not None,
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
        json.dump(found.to_dict(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(f"{found.bundle.path}\n{found.text()}")
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    if arguments.calibration_data is None:
        raise OptionError(
            "INT8 needs real images to find ranges on: pass --calibration-data with a folder of them, a list, .npy or .npz; 512 to "
            "1024 like those that the network will see serve well"
        )
    require_libraries()
    from mtl_deploy.calibration.search.find_skip import MissedBudgetError

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
            json.dump({"bundle": None, "budgets": error.record}, sys.stdout, indent=2, ensure_ascii=False)
            sys.stdout.write("\n")
        raise
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
    return budget_exit_code(bundle)


def budget_exit_code(bundle: Bundle) -> int:
    """Return 3 where the images could not decide whether a budget is met, and say so on standard error; otherwise 0."""
    budgets = bundle.manifest.calibration.get("budgets", {})
    if budgets.get("outcome") != "undecided":
        return 0
    sys.stderr.write(f"{budgets['summary']}\n")
    return UNDECIDED
