"""The options of ``mtl-export`` for other engines' formats."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError

FORMATS = ("ort",)


def add_package_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group ``other engines``."""
    group = parser.add_argument_group("other engines (MODEL is a bundle)")
    group.add_argument(
        "--package",
        nargs=2,
        metavar=("ort", "DIR"),
        help="write the shared graphs as ONNX Runtime's model package (for 1.32 and later), with a variant for each execution "
        "provider; with --precision int8 those that run it get INT8",
    )
    group.add_argument(
        "--triton",
        type=Path,
        metavar="DIR",
        help="write a model repository for Triton Inference Server: each precision's graph and engine, and a model that takes "
        "encoded images; --precision chooses",
    )


def repository(arguments: argparse.Namespace, precisions: Sequence[str]) -> str:
    """Write a bundle as a Triton model repository, and return what was written.

    Raises:
        BundleError: there is no readable bundle.
        OptionError: the folder cannot be written.
    """
    from .triton import write_repository

    if arguments.output is not None:
        raise OptionError("--triton names its own folder; leave --output out")
    made = write_repository(arguments.checkpoint, arguments.triton, precisions, force=arguments.force)
    lines = [f"wrote {arguments.triton}: {', '.join(made.models)}", *made.left_out]
    return "".join(f"{line}\n" for line in lines)


def package(arguments: argparse.Namespace, precisions: Sequence[str]) -> str:
    """Write a bundle in another engine's format, and return what was written.

    Raises:
        BundleError: there is no readable bundle.
        OptionError: the format is unknown, or the folder cannot be written.
    """
    from .onnxruntime import write_package

    name, folder = arguments.package
    if name not in FORMATS:
        raise OptionError(f"--package {name}: the formats are: {', '.join(FORMATS)}; write --package ort DIR")
    if arguments.output is not None:
        raise OptionError("--package names its own folder; leave --output out")
    chosen = write_package(arguments.checkpoint, Path(folder), precisions, force=arguments.force)
    listed = ", ".join(f"{variant} {precision}" for variant, precision in chosen.items())
    return f"wrote {folder}: {listed}\n"
