"""``mtl-doctor``: the first thing to paste into a report of a fault."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.console.command import parser, run_command
from mtl_deploy.runtime.errors import OptionError

from .artifacts import describe_bundle
from .libraries import libraries
from .machine import machine
from .providers import providers
from .text import text

SCHEMA_VERSION = 1

_DESCRIPTION = """\
Show what is installed here, the driver, the GPUs, the libraries with their versions and what each command still needs; with a
bundle, also which of its files run here and why the others do not. The output names no host, user or folder, so you can paste it
into a bug report. The command imports neither PyTorch nor, without --run, TensorRT and OpenVINO, and writes nothing."""

_EPILOG = """\
examples:
  mtl-doctor
  mtl-doctor model.mtl
      also: which files of the bundle run here
  mtl-doctor model.mtl --run
      runs each file once, in a separate process, and says which one load() chooses
  mtl-doctor model.mtl --json
      the same for programs

exit codes: 0 done; 1 no file of BUNDLE with all tasks runs here; 2 input that cannot be used; 130 interrupted (143 by TERM, 129 by
HUP)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-doctor`` and return its exit code."""
    return run_command(lambda: _doctor(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-doctor", _DESCRIPTION, _EPILOG)
    made.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="NAME.mtl: say which of its files run here"
    )
    made.add_argument(
        "--run",
        action="store_true",
        help="run each file of BUNDLE once on an image of zeros, TensorRT's engines included",
    )
    made.add_argument("--json", action="store_true", help="print a JSON document instead of text")
    return made


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.run and arguments.bundle is None:
        raise OptionError("--run runs the files of a bundle: name one, as in mtl-doctor model.mtl --run")
    found = examined(arguments.bundle, tried=arguments.run)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(text(found))
    bundle = found["bundle"]
    if bundle is None or any(one["runs"] for one in bundle["artifacts"] if one["role"] == "shared"):
        return 0
    return 1


def examined(path: Path | None, *, tried: bool) -> dict[str, Any]:
    """Return the document that ``--json`` prints; ``report.schema.json`` describes it.

    Args:
        path: of a bundle; None: the machine alone.
        tried: run each file of the bundle.

    Raises:
        BundleError: the path is no bundle.
    """
    bundle = None if path is None else open_bundle(path)
    names, fault = providers() if find_spec("onnxruntime") else ([], "ONNX Runtime is not installed")
    onnxruntime = {"providers": names, "fault": fault}
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        "libraries": libraries(),
        "onnxruntime": onnxruntime,
        "bundle": None if bundle is None else describe_bundle(bundle, onnxruntime, tried=tried),
    }
