"""``mtl-export``: a checkpoint in, a bundle out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from mtl_deploy.calibration.command_line import add_calibration_arguments, budget_exit_code, int8_options
from mtl_deploy.export.engines.cli import add_engine_arguments, engine_options, require_bundle_options, targets
from mtl_deploy.export.packages.cli import add_package_arguments, package, repository
from mtl_deploy.export.preprocessing.cli import add_preprocessing_arguments, stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.runtime.bundle.kinds.options import option_names
from mtl_deploy.runtime.bundle.kinds.registry import KINDS, examples
from mtl_deploy.runtime.bundle.manifest import MANIFEST, SUFFIX, Bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import FORM, parse_task
from mtl_deploy.runtime.bundle.tasks import Task, check_tasks
from mtl_deploy.runtime.console.command import Progress, parser, run_command
from mtl_deploy.runtime.console.completion import offer
from mtl_deploy.runtime.console.heap import keep_freed_memory
from mtl_deploy.runtime.console.mistaken import no_bundle
from mtl_deploy.runtime.console.resting import idle_threads_sleep, skip_last_collection
from mtl_deploy.runtime.errors import OptionError

from .cli_text import DESCRIPTION, EPILOG
from .options.constants import parse_constants
from .options.export import DEFAULT_PRECISIONS, PRECISIONS, QUICK_SAMPLES, SAMPLES, Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-export`` and return its exit code."""
    made = _parser()
    return run_command(lambda: _export(made, made.parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-export", DESCRIPTION, EPILOG)
    made.add_argument(
        "checkpoint",
        type=Path,
        metavar="MODEL",
        help="a .pt, .pth, .pt2 or .onnx file; or a bundle, to build engines for",
    )
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="NAME.mtl, or the folder to put it in (default: the current one)",
    )
    made.add_argument("-f", "--force", action="store_true", help="replace an existing bundle")
    made.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign the bundle with this Ed25519 private key in PEM; load(verify_key=...) checks it",
    )
    made.add_argument(
        "--upgrade",
        action="store_true",
        help="MODEL is a bundle of an earlier release: write its manifest as this release does, and change nothing else",
    )
    made.add_argument("--json", action="store_true", help="print the manifest instead of tables")
    made.add_argument(
        "-q", "--quiet", action="store_true", help="no progress lines (in a log there is one at most every ten seconds)"
    )

    _add_network_arguments(made)
    add_preprocessing_arguments(made)
    _add_graph_arguments(made)
    _add_verification_arguments(made)
    add_calibration_arguments(made.add_argument_group("INT8 (needs --calibration-data)"))
    add_engine_arguments(made)
    add_package_arguments(made)
    return made


def _add_network_arguments(made: argparse.ArgumentParser) -> None:
    network = made.add_argument_group("the network")
    network.add_argument(
        "--model", metavar="PACKAGE.MODULE:FACTORY", help="code that returns your network; MODEL holds its weights"
    )
    network.add_argument(
        "--weights",
        metavar="NAME",
        help="which of several state dicts in MODEL, such as ema: the keys that lead to it, with dots between them (default: the "
        "first that has all tensors of the network, an average last; what was not used is printed)",
    )
    network.add_argument(
        "--trust-pickle", action="store_true", help="let MODEL run code; only for files that you trust"
    )
    network.add_argument(
        "--constant",
        action="append",
        metavar="NAME=VALUE",
        help="another argument of the network's forward: a number, true, false, none, text, a size such as 480x640, or several "
        "values separated by commas; may be repeated",
    )
    network.add_argument("--tasks", type=Path, metavar="FILE", help="TOML file with one [[task]] table per task")
    task = network.add_argument(
        "--task",
        action="append",
        metavar=FORM,
        help=f"a task, in the order of the network's outputs; KIND with labels or a unit is such as {examples()}; FIELD is output "
        "(which of the network's outputs, as 0, det.0), columns (7,9: those of it), activation (what the network itself applies: "
        "none, sigmoid, softmax or log_softmax; found in its graph if left out), scale, offset, threshold, valid_range, upsample, "
        "argmax or a field of the kind's own (docs/kinds.md)",
    )
    offer(task, tuple(KINDS), sign="=")


def _add_graph_arguments(made: argparse.ArgumentParser) -> None:
    graphs = made.add_argument_group("the graphs")
    graphs.add_argument(
        "--outputs",
        choices=("decoded", "logits"),
        default="decoded",
        help="decoded: probabilities, class indices per pixel and scaled values (default); logits: the network's own outputs, "
        "which are probabilities if it applies a sigmoid or softmax itself",
    )
    graphs.add_argument(
        "--nms",
        choices=("runtime", "graph"),
        help="what keeps the best of overlapping boxes of a detection: the runtime, in numpy (default), or the graph, which "
        "TensorRT-RTX cannot run",
    )
    graphs.add_argument(
        "--opset", type=int, help="default: 17, which TensorRT 8.6 reads, or 18 if 17 cannot express the graph"
    )
    precision = graphs.add_argument(
        "--precision",
        metavar="LIST",
        help=f"which of {', '.join(PRECISIONS)} (which makes int8.onnx and int8-cpu.onnx); default: {','.join(DEFAULT_PRECISIONS)},"
        " and int8 with --calibration-data; for a bundle: the graphs that get engines",
    )
    offer(precision, PRECISIONS, sign=",")
    graphs.add_argument("--no-separate", action="store_true", help="leave out the single-task models")
    graphs.add_argument(
        "--split",
        action="store_true",
        help="write the backbone and each head as separate graphs too, so that any heads run after one pass of the backbone; "
        "proven equal to the whole",
    )


def _add_verification_arguments(made: argparse.ArgumentParser) -> None:
    verification = made.add_argument_group("verification")
    verification.add_argument("--images", type=Path, metavar="DIR", help="real images (default: generated ones)")
    verification.add_argument(
        "--samples",
        type=int,
        help=f"number of images (default: {SAMPLES}, with --quick {QUICK_SAMPLES})",
    )
    verification.add_argument(
        "--quick",
        action="store_true",
        help=f"for development: the FP32 graph alone, verified on {QUICK_SAMPLES} images, without engines; the bundle records "
        "what was not checked or made, and loading it warns; --precision, --engine and --samples bring parts back",
    )
    verification.add_argument(
        "--tolerance",
        action="append",
        metavar="PRECISION=ERROR",
        help="error allowed, as a share of the spread of a task's values over the images (defaults: fp32=1e-4, fp16=1e-2)",
    )
    verification.add_argument("--threads", type=int, help="used by PyTorch, ONNX Runtime and the engine builder")


def _export(parsed: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    path = arguments.checkpoint
    if (path / MANIFEST).is_file() or path.name == MANIFEST:
        require_bundle_options(arguments, parsed)
        if arguments.upgrade and (arguments.package or arguments.triton or arguments.verify or arguments.check_target):
            raise OptionError(
                "--upgrade is a step of its own: upgrade the bundle first, then do the rest with another call"
            )
        if arguments.package:
            sys.stdout.write(package(arguments, _precisions(arguments)))
        if arguments.triton:
            sys.stdout.write(repository(arguments, _precisions(arguments)))
        if arguments.package or arguments.triton:
            return 0
        _print(_update(arguments), arguments)
        return 0
    if arguments.upgrade:
        raise OptionError(f"--upgrade is for bundles; {no_bundle(path)}")
    if arguments.verify:
        raise OptionError(f"--verify runs the engines of a bundle, and {path} is not one; an export is always verified")
    if arguments.package or arguments.triton:
        option = "--package" if arguments.package else "--triton"
        raise OptionError(f"{option} packs a bundle, and {path} is not one; export it first, then pack NAME.mtl")
    options = _options(arguments)
    if not options.checkpoint.exists():  # said before PyTorch takes its seconds to start
        raise OptionError(
            f"{options.checkpoint}: no such file; give the path of a checkpoint (.pt, .pth) or program (.pt2)"
        )
    _require_libraries()
    keep_freed_memory()
    skip_last_collection()
    from .pipeline import export

    with idle_threads_sleep():
        bundle = export(options, Progress(quiet=arguments.quiet))
    _print(bundle, arguments)
    return budget_exit_code(bundle)


def _update(arguments: argparse.Namespace) -> Bundle:
    """Build engines for an existing bundle, or verify those it has; this needs neither torch nor onnx."""
    from mtl_deploy.export.engines.stage import update_bundle

    from .upgrade import upgrade_bundle

    output = arguments.output
    if output is not None and output.suffix != SUFFIX:
        output = output / arguments.checkpoint.resolve().name
    if arguments.upgrade:
        return upgrade_bundle(
            arguments.checkpoint,
            output=output,
            force=arguments.force,
            sign=arguments.sign,
            progress=Progress(quiet=arguments.quiet),
        )
    return update_bundle(
        arguments.checkpoint,
        engine_options(arguments, _precisions(arguments) or None),
        output=output,
        force=arguments.force,
        sign=arguments.sign,
        verify=arguments.verify,
        targets=targets(arguments),
        tolerances=_tolerances(arguments.tolerance or []),
        progress=Progress(quiet=arguments.quiet),
    )


def _print(bundle: Bundle, arguments: argparse.Namespace) -> None:
    if arguments.json:
        result = {"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()}
        json.dump(result, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        from .report import report

        sys.stdout.write(report(bundle, arguments.images or arguments.calibration_data, arguments.labels))


def _require_libraries() -> None:
    for name in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise OptionError(f"mtl-export needs {name}, which is not installed: pip install 'mtl-deploy[export]'")


def _options(arguments: argparse.Namespace) -> Options:
    said = stated(arguments)
    quick = arguments.quick
    usual = ("fp32",) if quick else DEFAULT_PRECISIONS
    engines = engine_options(arguments)
    return Options(
        checkpoint=arguments.checkpoint,
        output=arguments.output,
        model=arguments.model,
        weights=arguments.weights,
        trust_pickle=arguments.trust_pickle,
        constants=parse_constants(arguments.constant or ()),
        tasks=_suppressed(_tasks(arguments.tasks, arguments.task), arguments.nms),
        preprocessing=Preprocessing() if said.transform else combine(said)[0],
        stated=said,
        image_size_given=said.size is not None,
        outputs=arguments.outputs,
        opset=arguments.opset,
        precisions=_precisions(arguments) or (*usual, *(["int8"] if arguments.calibration_data else [])),
        named=frozenset(_precisions(arguments)),
        separate=not (arguments.no_separate or quick),
        split=arguments.split,
        images=arguments.images,
        samples=arguments.samples if arguments.samples is not None else QUICK_SAMPLES if quick else SAMPLES,
        quick=quick,
        tolerances=_tolerances(arguments.tolerance or []),
        threads=arguments.threads,
        force=arguments.force,
        sign=arguments.sign,
        engines=replace(engines, library="none") if quick and arguments.engine == "auto" else engines,
        targets=targets(arguments),
        calibration_data=arguments.calibration_data,
        labels=arguments.labels,
        int8=int8_options(arguments),
    )


def _tasks(file: Path | None, texts: Sequence[str] | None) -> tuple[Task, ...] | None:
    if file is not None and texts:
        raise OptionError("--tasks and --task both declare the tasks; use one of them")
    if file is not None:
        from mtl_deploy.export.network.task_file import read_task_file

        return read_task_file(file)
    return check_tasks(parse_task(text) for text in texts) if texts else None


def _suppressed(tasks: tuple[Task, ...] | None, nms: str | None) -> tuple[Task, ...] | None:
    """Return tasks with who suppresses the boxes of those that detect."""
    if nms is None:
        return tasks
    if tasks is None or not any("nms" in option_names(task.of) for task in tasks):
        raise OptionError(f"--nms {nms}: no task is a detection")
    return tuple(
        replace(task, options=replace(task.options, nms=nms)) if "nms" in option_names(task.of) else task
        for task in tasks
    )


def _precisions(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip().lower() for part in (arguments.precision or "").split(",") if part.strip()))


def _tolerances(texts: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        precision, _, number = text.partition("=")
        precision = precision.strip().lower()
        try:
            found[precision] = float(number)
        except ValueError:
            raise OptionError(f"--tolerance {text!r}: write PRECISION=ERROR, such as fp16=0.05") from None
        if precision not in PRECISIONS or not 0 < found[precision] < 1:
            raise OptionError(
                f"--tolerance {text!r}: write one of {', '.join(PRECISIONS)}, with an error between 0 and 1"
            )
    return found
