"""``mtl-infer``: predictions of a bundle on images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .console import parser, run_command, table
from .decoding import Prediction
from .errors import ImageError, OptionError
from .loading import load
from .model import Model

JSON_VERSION = 1
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))

_DESCRIPTION = "Predict all tasks of a bundle on images, with one pass of the network an image."

_EPILOG = """\
examples:
  mtl-infer model.mtl face.jpg
  mtl-infer model.mtl photos/ --tasks age,gender
      all images of a folder and below it; the work of the other tasks is not done
  mtl-infer model.mtl face.jpg --json
  mtl-infer model.mtl/separate/age.onnx face.jpg
      one graph
  mtl-infer model.mtl face.jpg --backend tensorrt
      on its engine, or not at all; without the option a graph runs where no engine fits, with a warning

An image that cannot be read is named on standard error and left out; the others are predicted.
exit codes: 0 done; 1 the work failed; 2 input that cannot be used, a single image among it; 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-infer`` and return its exit code."""
    return run_command(lambda: _infer(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-infer", _DESCRIPTION, _EPILOG)
    made.add_argument("model", metavar="MODEL", help="a bundle (NAME.mtl), or a graph or engine of one")
    made.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image file, or a folder of them")
    made.add_argument("--json", action="store_true", help="print a JSON document instead of a table")
    made.add_argument("--tasks", metavar="NAME,...", help="only these tasks")
    made.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (default: the fastest here)")
    made.add_argument("--backend", metavar="NAME", help="tensorrt or onnxruntime (default: an engine where one fits)")
    made.add_argument("--provider", action="append", metavar="NAME", help="ONNX Runtime's, in order of preference")
    made.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    return made


def _infer(arguments: argparse.Namespace) -> int:
    files = list(_files(arguments.images))
    tasks = None if arguments.tasks is None else [name.strip() for name in arguments.tasks.split(",")]
    with load(
        arguments.model,
        precision=arguments.precision,
        backend=arguments.backend,
        providers=arguments.provider,
        tasks=tasks,
        threads=arguments.threads,
    ) as model:
        found: dict[Path, dict[str, Prediction]] = {}
        bad: dict[Path, str] = {}
        for file in files:
            try:
                found[file] = model.predict(file)
            except ImageError as error:  # noqa: PERF203 - one bad image must not end the run
                bad[file] = str(error)
                sys.stderr.write(f"left out: {error}\n")
        sys.stdout.write(_json(model, found, bad) if arguments.json else _table(model, found))
    return ImageError.exit_code if bad else 0


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not images:
            raise OptionError(f"{path}: no image in this folder or below (looked for {', '.join(sorted(SUFFIXES))})")
        yield from images


def _table(model: Model, found: dict[Path, dict[str, Prediction]]) -> str:
    if not found:
        return ""
    names = [task.name for task in model.tasks]
    rows = [[str(file), *(str(row[name]) for name in names)] for file, row in found.items()]
    return table(["image", *names], rows) + "\n"


def _json(model: Model, found: dict[Path, dict[str, Prediction]], bad: dict[Path, str]) -> str:
    document = {
        "schema_version": JSON_VERSION,
        "artifact": None if model.artifact is None else model.artifact.path,
        "backend": model.backend.details,
        "predictions": [
            {"image": str(file), "tasks": {name: prediction.to_dict() for name, prediction in row.items()}}
            for file, row in found.items()
        ],
        "left_out": [{"image": str(file), "reason": reason} for file, reason in bad.items()],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
