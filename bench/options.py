"""The options of ``mtl-bench``, and what can be checked of them before anything is loaded."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mtl_deploy.bench.results.output_files import check_targets
from mtl_deploy.bench.sections import registry as extras
from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.selection import BACKENDS

_DESCRIPTION = """\
Measure one shared pass of a multi-task network against separate single-task models, in shuffled rounds, on this machine. A call is
timed from a ready batch in host memory to all outputs in host memory. Engines are measured where they fit here, else graphs.
mtl-bench compare A.json B.json says whether two results differ; mtl-bench report RESULT.json makes a page of one."""

_EPILOG = """\
examples:
  mtl-bench model.mtl
  mtl-bench model.mtl --quick
      shared and separate alone, started once
  mtl-bench model.mtl --batch 8 --threads 2 --duration 60
  mtl-bench model.mtl --precision int8 --add separate@fp32
      the shared INT8 graph, against the separate ones of both precisions
  mtl-bench model.mtl/fp16.onnx --provider CUDA
  mtl-bench model.mtl/fp16.trt --batch 1,8,32
      engines: the separate ones in sequence, on a stream each and as one CUDA graph; at each batch, and where throughput ends
      to grow
  mtl-bench model.mtl --backend onnxruntime
      the graphs, although engines fit
  mtl-bench model.mtl --checkpoint model.pt --peers openvino,onnxruntime:CUDA
      PyTorch's own forward and other libraries beside it
  mtl-bench model.mtl --rate sweep --deadline 50
      latency under load, and the highest rate whose p99 keeps 50 ms
  mtl-bench model.mtl --report report.html --json result.json --csv samples.csv
  mtl-bench compare before.json after.json --fail-above 5

On the GPU's clock, with and without transfers and CUDA graphs, an engine's times have trtexec's names. docs/benchmarking.md
defines every figure. exit codes: 0 done; 1 shared's and separate's outputs differ, or running failed; 2 input that cannot be used,
such as an engine that does not run here; 130 interrupted (143 by TERM, 129 by HUP),
with what was measured so far."""

PROCESSES = 5


@dataclass(frozen=True)
class Checked:
    """The options that are lists or depend on others.

    Attributes:
        batches: images a call, growing.
        threads: ONNX Runtime's in an operator; the first is measured everywhere. Empty: its default.
        processes: how often all contestants are started.
        only: the contestants to measure; None: all.
        without: contestants to leave out.
        add: contestants of other precisions.
    """

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    processes: int
    only: tuple[str, ...] | None
    without: tuple[str, ...]
    add: tuple[str, ...]


def bench_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = parser("mtl-bench", _DESCRIPTION, _EPILOG)
    made.add_argument("path", type=Path, metavar="PATH", help="a bundle (NAME.mtl) or an artifact in one")
    _add_what(made.add_argument_group("what is measured"))
    _add_how(made.add_argument_group("how"))
    extras.add_options(made)
    results = made.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", help="all figures and samples; - for standard output, not the table")
    results.add_argument("--csv", metavar="FILE", help="all samples, a call a line")
    results.add_argument("--report", metavar="FILE", help="a page for a browser, in one file")
    results.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    results.add_argument("-q", "--quiet", action="store_true", help="no progress line")
    return made


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch", default="1", metavar="N[,N...]", help="images a call (default: 1); several: in turn")
    group.add_argument(
        "--precision", metavar="NAME", help="fp32, fp16 or int8 (default: what the runtime would choose)"
    )
    group.add_argument("--backend", choices=BACKENDS, help="engines or graphs (default: engines where they fit)")
    group.add_argument(
        "--contestants", metavar="NAME,...", help="only these, and shared: separate,concurrent,shared:TASK"
    )
    group.add_argument("--without", metavar="NAME,...", help="leave these contestants out")
    group.add_argument("--add", metavar="NAME@PRECISION,...", help="these as well, such as separate@fp32")
    group.add_argument(
        "--quick", action="store_true", help="shared and separate alone, started once; latency and memory"
    )
    group.add_argument("--no-memory", action="store_true", help="leave the memory measurement out")


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--duration", type=float, metavar="S", help="seconds to measure, a batch size (default: 6 a contestant)"
    )
    group.add_argument(
        "--processes", type=int, metavar="P", help=f"start all contestants anew so often (default: {PROCESSES})"
    )
    group.add_argument(
        "--isolation",
        choices=("process", "none"),
        help="a process for each contestant, or this one for all (default: process for graphs, none for engines)",
    )
    group.add_argument("--no-cuda-graphs", action="store_true", help="enqueue engines kernel by kernel")
    group.add_argument(
        "--threads",
        metavar="N[,N...]",
        help="ONNX Runtime's in an operator (default: one a core); several: scaling over them",
    )
    group.add_argument("--provider", action="append", metavar="NAME", help="ONNX Runtime's, in order of preference")
    group.add_argument("--spinning", action="store_true", help="let idle threads spin, as ONNX Runtime does by default")
    group.add_argument("--seed", type=int, default=0, help="of the images, the orders and the bootstrap (default: 0)")


def checked(arguments: argparse.Namespace) -> Checked:
    """Check what can be checked before anything is loaded.

    Raises:
        OptionError: an option that cannot be used.
    """
    batches = tuple(sorted(set(_numbers("--batch", arguments.batch, "1,8,32"))))
    threads = () if arguments.threads is None else _numbers("--threads", arguments.threads, "1,2,4")
    if arguments.duration is not None and not 0 < arguments.duration <= 86400:
        raise OptionError(f"--duration {arguments.duration:g}: use seconds, from more than 0 to a day")
    if arguments.processes is not None and not 1 <= arguments.processes <= 1000:
        raise OptionError(f"--processes {arguments.processes}: use 1 to 1000")
    if arguments.seed < 0:
        raise OptionError(f"--seed {arguments.seed}: use 0 or more")
    files = {f"--{option}": getattr(arguments, option) for option in ("json", "csv", "report")}
    if files["--json"] == "-":
        del files["--json"]
    check_targets(
        {option: file for option, file in files.items() if file is not None},
        force=arguments.force,
        inputs=(arguments.path, arguments.checkpoint),
    )
    if arguments.quick and arguments.contestants is not None:
        raise OptionError("--quick and --contestants both say what is measured; leave one of them out")
    extras.check_options(arguments)
    only = ("separate",) if arguments.quick else _names(arguments.contestants)
    processes = arguments.processes or max(1 if arguments.quick else PROCESSES, arguments.builds)
    return Checked(batches, threads, processes, only, _names(arguments.without) or (), _names(arguments.add) or ())


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in str(text).split(",")))
    except ValueError:
        raise OptionError(f"{option} {text}: use a number, or several such as {example}") from None
    if min(numbers) < 1:
        raise OptionError(f"{option} {min(numbers)}: use 1 or more")
    return numbers


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for part in text.split(",") if (name := part.strip()))
