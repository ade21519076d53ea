"""The options of ``mtl-export`` for engines and targets."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_deploy.export.options.engines import DEFAULT_BATCH, ENGINES, EngineOptions, parse_batch
from mtl_deploy.export.preprocessing.cli import NAMES as PREPROCESSING
from mtl_deploy.export.targets.linter import TARGETS, Target, find_target
from mtl_deploy.runtime.backends.tensorrt.record import HARDWARE_COMPATIBILITY
from mtl_deploy.runtime.console.completion import offer
from mtl_deploy.runtime.errors import OptionError

_DEFAULT = ":".join(map(str, DEFAULT_BATCH))
_NOT_FOR_BUNDLES = (
    *(
        "model",
        "weights",
        "trust_pickle",
        "constant",
        "tasks",
        "task",
        *PREPROCESSING,
        "outputs",
        "opset",
    ),
    *("no_separate", "split", "images", "samples", "quick", "calibration_data", "labels", "max_drop"),
)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the groups ``the engines`` and ``targets``."""
    engines = parser.add_argument_group("the engines")
    engines.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="library that builds the engines (default: auto, the one that can build here; if there is none, only graphs are "
        "written)",
    )
    engines.add_argument(
        "--gpu", metavar="SM,...", help="TensorRT-RTX: GPUs to build for, such as sm86,sm89 (default: Ampere and later)"
    )
    engines.add_argument(
        "--batch",
        metavar="MIN:OPT:MAX",
        help=f"batch sizes that the engines take, tuned for OPT (default: {_DEFAULT}); a single number makes static engines",
    )
    engines.add_argument("--workspace", type=int, metavar="MIB", help="memory that a layer may use besides its tensors")
    engines.add_argument(
        "--optimization-level", type=int, metavar="0-5", help="how long to search for fast kernels (default: 3)"
    )
    engines.add_argument("--timing-cache", type=Path, metavar="FILE", help="reuse measurements from earlier builds")
    engines.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later TensorRT versions run the engines: those of the same major version and of the next one",
    )
    engines.add_argument(
        "--hardware-compatibility",
        choices=HARDWARE_COMPATIBILITY,
        default="none",
        metavar="LEVEL",
        help=f"let other GPUs run the engines of TensorRT: {', '.join(HARDWARE_COMPATIBILITY)} (default: none)",
    )
    engines.add_argument(
        "--tactic-sources", metavar="NAME,...", help="where kernels may come from, such as jit_convolutions"
    )
    engines.add_argument(
        "--tf32",
        action="store_true",
        help="let fp32 engines compute in TF32, which is faster and has 10 bits of mantissa",
    )
    engines.add_argument(
        "--verify",
        action="store_true",
        help="MODEL is a bundle: run its engines here and record how closely they match PyTorch",
    )
    target = engines.add_argument(
        "--check-target",
        metavar="NAME,...",
        help="check that these can read the graphs: jetpack-6.2, tensorrt-10.3, ... (docs/targets.md has all)",
    )
    offer(target, tuple(TARGETS), sign=",")


def engine_options(arguments: argparse.Namespace, precisions: tuple[str, ...] | None = None) -> EngineOptions:
    """Return how engines are to be built.

    Args:
        arguments: the command's.
        precisions: of a bundle's graphs that get engines; None: all.

    Raises:
        OptionError: a value cannot be used.
    """
    if arguments.threads is not None and arguments.threads < 1:
        raise OptionError(f"--threads {arguments.threads}: use 1 or more")
    sources = _names(arguments.tactic_sources)
    return EngineOptions(
        library=arguments.engine,
        gpus=tuple(name.lower() for name in _names(arguments.gpu)),
        batch=parse_batch(arguments.batch),
        workspace_mib=arguments.workspace,
        optimization_level=arguments.optimization_level,
        timing_cache=arguments.timing_cache,
        version_compatible=arguments.version_compatible,
        hardware_compatibility=arguments.hardware_compatibility,
        tactic_sources=sources or None,
        threads=arguments.threads,
        tf32=arguments.tf32,
        precisions=precisions,
    )


def targets(arguments: argparse.Namespace) -> tuple[Target, ...]:
    """Return the targets of ``--check-target``.

    Raises:
        OptionError: one is not known.
    """
    return tuple(find_target(name) for name in _names(arguments.check_target))


def require_bundle_options(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse options that make no sense when MODEL is a bundle.

    Raises:
        OptionError: such an option was given; the message names the first.
    """
    for name in _NOT_FOR_BUNDLES:
        if getattr(arguments, name) != parser.get_default(name):
            raise OptionError(
                f"{arguments.checkpoint} is a bundle: its graphs already exist, so --{name.replace('_', '-')} has no effect; "
                "export the checkpoint again for other graphs, or add INT8 graphs with mtl-calibrate"
            )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
