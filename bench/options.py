"""The options of ``mtl-bench``, and what can be checked of them before anything is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_deploy.bench.results.output_files import check_targets
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.counts import parse_numbers, parse_threads
from mtl_deploy.runtime.bundle.manifest import PRECISIONS
from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.console.completion import offer
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.selection import BACKENDS, PROVIDERS

from . import peer_options
from .peer_options import PeerOptions

_DESCRIPTION = """\
Measure one shared pass of a multi-task network against separate single-task models, in shuffled rounds, on this machine. A call is
timed from a ready batch in host memory to all outputs in host memory. Engines are measured if they run here, otherwise graphs.
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
      engines: the separate ones in sequence, on one stream each, and as one CUDA graph; at each batch size, and from which one
      on throughput stops growing
  mtl-bench model.mtl --backend onnxruntime
      the graphs, although engines would run
  mtl-bench model.mtl --precision int8 --backend openvino
      shared and separate on OpenVINO
  mtl-bench model.mtl --checkpoint model.pt --peers openvino,onnxruntime:CUDA
      PyTorch's own forward and other libraries beside it
  mtl-bench model.mtl --rate sweep --deadline 50
      latency under load, and the highest rate at which the p99 keeps 50 ms
  mtl-bench model.mtl --recipe ci --json result.json
      for CI: says how long it will take, and measures only the shared pass
  mtl-bench model.mtl --report report.html --json result.json --csv samples.csv
  mtl-bench model.mtl --record
      on the device: measure which graph is fastest on which backend; load() then chooses it
  mtl-bench compare before.json after.json --fail-above 5
  mtl-bench report result.json

On the GPU's clock, with and without transfers and CUDA graphs, an engine's times have trtexec's names. docs/benchmarking.md
defines every figure.

exit codes: 0 done; 1 shared's and separate's outputs differ, or running failed; 2 input that cannot be used,
such as an engine that does not run here; 130 interrupted (143 by TERM, 129 by HUP),
with what was measured so far."""

PROCESSES = 5


@dataclass(frozen=True)
class OutputOptions:
    """Where the result goes beside the terminal.

    Attributes:
        json: a file, ``-`` for standard output instead of the tables, or None.
        csv: a file for the samples, or None.
        report: a file for the page, or None.
        force: whether files that exist are replaced.
        details: whether the terminal gets every table, in place of one line for each part.
    """

    json: str | None
    csv: str | None
    report: str | None
    force: bool
    details: bool


@dataclass(frozen=True)
class RunOptions:
    """The options of ``mtl-bench``, checked as far as they can be before anything is loaded.

    Attributes:
        path: a bundle, or an artifact in one.
        batches: images per call, growing.
        precision: that is measured; None: what the runtime would choose.
        backend: that is measured; None: engines where they fit.
        only: the contestants to measure; None: all.
        without: contestants to leave out.
        add: contestants of other precisions.
        quick: shared and separate alone, without what was not asked for by name.
        recipe: ``ci``: the shared pass alone, for as long as it takes to detect a regression; None: no recipe.
        memory: whether memory is measured.
        duration: seconds at a batch size; None: by the number of contestants.
        processes: how often all contestants are started.
        isolation: ``process`` or ``none``; None: by the backend.
        cuda_graphs: whether engines are launched as CUDA graphs.
        threads: of ONNX Runtime inside an operator; the first number is used everywhere. Empty: its default.
        providers: of ONNX Runtime, in order of preference; None: its default.
        spinning: whether idle threads spin.
        seed: of the images and the orders.
        peers: contestants beside the bundle's own.
        sections: the options of each section, by its key.
        output: where the result goes.
        quiet: whether there is no progress line.
    """

    path: Path
    batches: tuple[int, ...]
    precision: str | None
    backend: str | None
    only: tuple[str, ...] | None
    without: tuple[str, ...]
    add: tuple[str, ...]
    quick: bool
    recipe: str | None
    memory: bool
    duration: float | None
    processes: int
    isolation: str | None
    cuda_graphs: bool
    threads: tuple[int, ...]
    providers: tuple[str, ...] | None
    spinning: bool
    seed: int
    peers: PeerOptions
    sections: Mapping[str, Any]
    output: OutputOptions
    quiet: bool


def add_operand(made: argparse.ArgumentParser) -> None:
    """Add what is measured to the command's parser."""
    made.add_argument("path", metavar="PATH", help="a bundle (NAME.mtl) or an artifact in one")


def options_parser() -> argparse.ArgumentParser:
    """Return the command's parser with its options alone."""
    made = parser("mtl-bench", _DESCRIPTION, _EPILOG)
    _add_what(made.add_argument_group("what is measured"))
    _add_how(made.add_argument_group("how"))
    peer_options.add_options(made)
    registry.add_options(made)
    results = made.add_argument_group("results")
    results.add_argument(
        "--record",
        action="store_true",
        help="measure only each graph on each backend for a few seconds, and keep the times in the bundle, by which load() chooses",
    )
    results.add_argument(
        "--details", action="store_true", help="print every table and warning, not one line for each part"
    )
    results.add_argument("--json", metavar="FILE", help="all figures and samples; - for standard output, not the text")
    results.add_argument("--csv", metavar="FILE", help="all samples, one call per line")
    results.add_argument("--report", metavar="FILE", help="a page for a browser, in one file")
    results.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    results.add_argument("-q", "--quiet", action="store_true", help="no progress line")
    return made


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch", default="1", metavar="N[,N...]", help="images per call (default: 1); several: one after the other"
    )
    precision = group.add_argument(
        "--precision",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}; int8 is int8-cpu on a processor (default: what the runtime would "
        "choose)",
    )
    offer(precision, PRECISIONS)
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        help="engines, or graphs on one of the others (default: engines if they run here, otherwise what load() chooses)",
    )
    group.add_argument(
        "--contestants", metavar="NAME,...", help="only these, and shared: separate,concurrent,shared:TASK"
    )
    group.add_argument("--without", metavar="NAME,...", help="leave these contestants out")
    group.add_argument("--add", metavar="NAME@PRECISION,...", help="also these, such as separate@fp32")
    group.add_argument(
        "--quick", action="store_true", help="only shared and separate, started once; latency and memory"
    )
    group.add_argument(
        "--recipe",
        choices=("ci",),
        help="ci: only the shared pass, for as long as it takes to detect 5 %% more time with a power of 80 %%",
    )
    group.add_argument("--no-memory", action="store_true", help="leave the memory measurement out")


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--duration", type=float, metavar="S", help="seconds to measure per batch size (default: 6 per contestant)"
    )
    group.add_argument(
        "--processes", type=int, metavar="P", help=f"start all contestants anew this many times (default: {PROCESSES})"
    )
    group.add_argument(
        "--isolation",
        choices=("process", "none"),
        help="one process per contestant, or this one for all (default: process for graphs, none for engines)",
    )
    group.add_argument("--no-cuda-graphs", action="store_true", help="enqueue engines kernel by kernel")
    group.add_argument(
        "--threads",
        metavar="N[,N...]",
        help="threads of ONNX Runtime inside an operator, or of OpenVINO (default: one per core); several: scaling over them",
    )
    provider = group.add_argument(
        "--provider", action="append", metavar="NAME", help="ONNX Runtime's, in order of preference"
    )
    offer(provider, PROVIDERS)
    group.add_argument("--spinning", action="store_true", help="let idle threads spin, as ONNX Runtime does by default")
    group.add_argument("--seed", type=int, default=0, help="of the images and the order of contestants (default: 0)")


def read_options(arguments: argparse.Namespace) -> RunOptions:
    """Check what can be checked before anything is loaded.

    Raises:
        OptionError: an option that cannot be used.
    """
    path = Path(arguments.path)
    batches = tuple(sorted(parse_numbers("--batch", arguments.batch, "1,8,32")))
    if arguments.duration is not None and not 0 < arguments.duration <= 86400:
        raise OptionError(f"--duration {arguments.duration:g}: use seconds, from more than 0 to a day")
    if arguments.processes is not None and not 1 <= arguments.processes <= 1000:
        raise OptionError(f"--processes {arguments.processes}: use 1 to 1000")
    if arguments.seed < 0:
        raise OptionError(f"--seed {arguments.seed}: use 0 or more")
    output = OutputOptions(arguments.json, arguments.csv, arguments.report, arguments.force, arguments.details)
    files = {"--json": None if output.json == "-" else output.json, "--csv": output.csv, "--report": output.report}
    check_targets(
        {option: file for option, file in files.items() if file is not None},
        force=output.force,
        inputs=(path, arguments.checkpoint),
    )
    if arguments.quick and arguments.contestants is not None:
        raise OptionError("--quick and --contestants both say what is measured; leave one of them out")
    if arguments.recipe is not None:
        for option in ("quick", "processes", "duration"):
            if getattr(arguments, option):
                raise OptionError(f"--recipe {arguments.recipe} says how long to measure what; leave --{option} out")
    peers = peer_options.read_options(arguments)
    return RunOptions(
        path=path,
        batches=batches,
        precision=None if arguments.precision is None else arguments.precision.lower(),
        backend=arguments.backend,
        only=_only(arguments),
        without=_names(arguments.without) or (),
        add=_names(arguments.add) or (),
        quick=arguments.quick,
        recipe=arguments.recipe,
        memory=not arguments.no_memory,
        duration=arguments.duration,
        processes=arguments.processes or max(1 if arguments.quick else PROCESSES, peers.builds),
        isolation=arguments.isolation,
        cuda_graphs=not arguments.no_cuda_graphs,
        threads=parse_threads(arguments.threads),
        providers=tuple(arguments.provider) if arguments.provider else None,
        spinning=arguments.spinning,
        seed=arguments.seed,
        peers=peers,
        sections=registry.settings(arguments),
        output=output,
        quiet=arguments.quiet,
    )


def _only(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    if arguments.quick:
        return ("separate",)
    named = _names(arguments.contestants)
    return () if named is None and arguments.recipe is not None else named


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for part in text.split(",") if (name := part.strip()))
