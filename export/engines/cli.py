"""The options of ``mtl-export`` for engines and targets."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_deploy.export.options.engines import DEFAULT_BATCH, ENGINES, EngineOptions, parse_batch
from mtl_deploy.export.preprocessing.cli import NAMES as PREPROCESSING
from mtl_deploy.export.targets.linter import Target, find_target
from mtl_deploy.runtime.backends.tensorrt.record import HARDWARE_COMPATIBILITY
from mtl_deploy.runtime.errors import OptionError

_DEFAULT = ":".join(map(str, DEFAULT_BATCH))
_NOT_FOR_BUNDLES = (
    *(
        "model",
        "trust_pickle",
        "tasks",
        "task",
        *PREPROCESSING,
        "outputs",
        "opset",
    ),
    *("no_separate", "images", "samples", "calibration_data", "labels", "max_drop"),
)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the groups ``the engines`` and ``targets``."""
    engines = parser.add_argument_group("the engines")
    engines.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="library that builds engines (default: auto, the one that can build here; without one, graphs only)",
    )
    engines.add_argument(
        "--gpu", metavar="SM,...", help="TensorRT-RTX: GPUs to build for, such as sm86,sm89 (default: Ampere and later)"
    )
    engines.add_argument(
        "--batch",
        metavar="MIN:OPT:MAX",
        help=f"batches that engines take, OPT the one to tune for (default: {_DEFAULT}); one number: static",
    )
    engines.add_argument("--workspace", type=int, metavar="MIB", help="memory that a layer may use beside its tensors")
    engines.add_argument("--optimization-level", type=int, metavar="0-5", help="how long to search (default: 3)")
    engines.add_argument("--timing-cache", type=Path, metavar="FILE", help="reuse measurements of earlier builds")
    engines.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later TensorRT versions run the engines: of its major version, and the next",
    )
    engines.add_argument(
        "--hardware-compatibility",
        choices=HARDWARE_COMPATIBILITY,
        default="none",
        help="let other GPUs run TensorRT's engines (default: none)",
    )
    engines.add_argument(
        "--tactic-sources", metavar="NAME,...", help="where kernels may come from, such as jit_convolutions"
    )
    engines.add_argument(
        "--tf32", action="store_true", help="let fp32 engines compute in TF32: faster, 10 bits of mantissa"
    )
    engines.add_argument(
        "--verify",
        action="store_true",
        help="MODEL is a bundle: run its engines here and record how they match PyTorch",
    )
    engines.add_argument(
        "--check-target", metavar="NAME,...", help="say whether these read the graphs: jetpack-6.2, tensorrt-10.3, ..."
    )


def engine_options(arguments: argparse.Namespace, precisions: tuple[str, ...] | None = None) -> EngineOptions:
    """Return how engines are to be built.

    Args:
        arguments: the command's.
        precisions: of the graphs of a bundle that get engines; None: all.

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
    """Refuse options that make no sense where MODEL is a bundle.

    Raises:
        OptionError: names the first of them.
    """
    for name in _NOT_FOR_BUNDLES:
        if getattr(arguments, name) != parser.get_default(name):
            raise OptionError(
                f"{arguments.checkpoint} is a bundle: its graphs are made already, so --{name.replace('_', '-')} has no use; "
                "export the checkpoint again for other graphs, or make INT8 ones with mtl-calibrate"
            )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
