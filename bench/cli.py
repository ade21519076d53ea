"""``mtl-bench``: one shared pass against the separate models that it replaces."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_deploy.runtime.console import INTERRUPTED, Progress, parser, run_command
from mtl_deploy.runtime.errors import OptionError, RunError
from mtl_deploy.runtime.selection import BACKENDS

if TYPE_CHECKING:
    from .report import Report

_DESCRIPTION = """\
Measure one shared pass of a multi-task network against separate single-task models, in turn, on this machine. A call is timed
from a ready batch in host memory to all outputs in host memory. Engines are measured where they fit this machine, else graphs."""

_EPILOG = """\
examples:
  mtl-bench model.mtl
  mtl-bench model.mtl --batch 8 --threads 2 --duration 60
  mtl-bench model.mtl/fp16.onnx --provider CUDA
  mtl-bench model.mtl/fp16.trt --batch 1,8,32
      engines: the separate ones in sequence, on a stream each and as one CUDA graph; at each batch, and where throughput ends
      to grow
  mtl-bench model.mtl --backend onnxruntime
      the graphs, although engines fit
  mtl-bench model.mtl --json result.json

On the GPU's clock, with and without transfers and CUDA graphs, an engine's times have trtexec's names. docs/benchmarking.md
defines every figure. exit codes: 0 done; 1 the two sides' outputs differ, or running failed; 2 input that cannot be used, such as
an engine that does not run here; 130 interrupted, with what was measured so far."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench`` and return its exit code."""
    return run_command(lambda: _bench(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-bench", _DESCRIPTION, _EPILOG)
    made.add_argument("path", type=Path, metavar="PATH", help="a bundle (NAME.mtl) or an artifact in one")
    made.add_argument("--batch", default="1", metavar="N[,N...]", help="images a call (default: 1); several: in turn")
    made.add_argument(
        "--duration", type=float, default=20.0, metavar="S", help="seconds to measure, a batch size (default: 20)"
    )
    made.add_argument("--precision", metavar="NAME", help="fp32, fp16 or int8 (default: what the runtime would choose)")
    made.add_argument("--backend", choices=BACKENDS, help="engines or graphs (default: engines where they fit)")
    made.add_argument("--no-cuda-graphs", action="store_true", help="enqueue engines kernel by kernel")
    made.add_argument("--threads", type=int, metavar="N", help="ONNX Runtime's in an operator (default: one a core)")
    made.add_argument("--provider", action="append", metavar="NAME", help="ONNX Runtime's, in order of preference")
    made.add_argument("--spinning", action="store_true", help="let idle threads spin, as ONNX Runtime does by default")
    made.add_argument("--seed", type=int, default=0, help="of the images and the bootstrap (default: 0)")
    made.add_argument("--no-memory", action="store_true", help="leave the memory measurement out")
    made.add_argument(
        "--json", metavar="FILE", help="write all figures and samples; - for standard output, instead of the table"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="no progress line")
    return made


def _bench(arguments: argparse.Namespace) -> int:
    sizes = _check(arguments)
    from . import saturation
    from .environment import environment
    from .pair import Settings, find_pair, require_batch
    from .run import Plan, run

    providers = tuple(arguments.provider) if arguments.provider else None
    settings = Settings(providers, arguments.threads, arguments.spinning, not arguments.no_cuda_graphs)
    pair = find_pair(arguments.path, arguments.precision, providers, arguments.backend)
    for size in sizes:  # not after minutes of measuring
        require_batch(pair, size)
    plan = Plan(pair, settings, arguments.duration, arguments.seed, not arguments.no_memory, environment())
    progress = Progress(quiet=arguments.quiet)
    reports: list[Report] = []
    code = 0
    for size in sizes:
        try:
            report, interrupted = run(plan, size, progress)
            reports.append(report)
            code = INTERRUPTED if interrupted else 0
        except (RunError, KeyboardInterrupt) as error:
            if not reports:
                raise
            code = error.exit_code if isinstance(error, RunError) else INTERRUPTED
            reports[-1].warnings.append(
                f"batch {size} was not measured: {error if code != INTERRUPTED else 'interrupted'}"
            )
        if code:
            break
    _print(saturation.document(reports), saturation.text(reports), arguments.json)
    return code


def _check(arguments: argparse.Namespace) -> list[int]:
    """Check what can be checked before anything is loaded, and return the batch sizes, growing."""
    try:
        sizes = sorted({int(part) for part in arguments.batch.split(",")})
    except ValueError:
        raise OptionError(f"--batch {arguments.batch}: use a number, or several such as 1,8,32") from None
    if sizes[0] < 1:
        raise OptionError(f"--batch {sizes[0]}: use 1 or more")
    if not 0 < arguments.duration <= 86400:
        raise OptionError(f"--duration {arguments.duration:g}: use seconds, from more than 0 to a day")
    if arguments.threads is not None and arguments.threads < 1:
        raise OptionError(f"--threads {arguments.threads}: use 1 or more")
    if arguments.seed < 0:
        raise OptionError(f"--seed {arguments.seed}: use 0 or more")
    if arguments.json not in (None, "-"):  # not after minutes of measuring
        file = Path(arguments.json).absolute()
        if file.is_dir():
            raise OptionError(f"--json {arguments.json}: a folder; name a file in it")
        if not file.parent.is_dir():
            raise OptionError(f"--json {arguments.json}: no such folder; make it first")
    return sizes


def _print(document: dict[str, object], text: str, file: str | None) -> None:
    if file == "-":
        json.dump(document, sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    sys.stdout.write(text)
    if file is not None:
        try:
            Path(file).write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"--json {file}: {error.strerror or error}") from error
