"""``mtl-bench``: one shared pass against the separate models that it replaces."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.runtime.console import INTERRUPTED, Progress, parser, run_command
from mtl_deploy.runtime.errors import OptionError, WorkError

_DESCRIPTION = """\
Measure one shared pass of a multi-task network against separate single-task models, in turn, on this machine. A call is timed
from a ready batch in host memory to all outputs in host memory."""

_EPILOG = """\
examples:
  mtl-bench model.mtl
  mtl-bench model.mtl --batch 8 --threads 2 --duration 60
  mtl-bench model.mtl/fp16.onnx --provider CUDA
  mtl-bench model.mtl --json result.json

docs/benchmarking.md defines every figure. exit codes: 0 done; 1 the two sides' outputs differ, or running failed;
2 input that cannot be used; 130 interrupted, with what was measured so far."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench`` and return its exit code."""
    return run_command(lambda: _bench(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-bench", _DESCRIPTION, _EPILOG)
    made.add_argument("path", type=Path, metavar="PATH", help="a bundle (NAME.mtl) or an artifact in one")
    made.add_argument("--batch", type=int, default=1, metavar="N", help="images a call (default: 1)")
    made.add_argument("--duration", type=float, default=20.0, metavar="S", help="seconds to measure (default: 20)")
    made.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    made.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (default: what the runtime would choose)")
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
    _check(arguments)
    from .contestants import Settings, find_pair, make_batch, require_agreement, start
    from .environment import environment, warnings
    from .measure import Measurement, measure
    from .memory import Memory, peak_memory
    from .report import SIDES, Report

    progress = Progress(quiet=arguments.quiet)
    settings = Settings(
        tuple(arguments.provider) if arguments.provider else None, arguments.threads, arguments.spinning
    )
    pair = find_pair(arguments.path, arguments.precision, settings.providers)
    batch = make_batch(pair, arguments.batch, arguments.seed)
    where = environment()
    measurement = Measurement({side: [] for side in SIDES})
    memory: dict[str, Memory] = {}
    notes = warnings(where)
    interrupted = False
    with progress.step("Measuring latency") as say:
        contestants = [start(pair, side, settings) for side in SIDES]
        try:
            require_agreement(contestants[0], contestants[1], batch, pair.shared.precision)
            measure(contestants, batch, arguments.duration, measurement, progress=progress.update)
        except KeyboardInterrupt:
            if measurement.rounds == 0:
                raise
            interrupted = True
        finally:
            for contestant in contestants:
                contestant.close()
        say(f"{measurement.rounds} rounds")
    if not (arguments.no_memory or interrupted):  # last: both sides have loaded by now, and are freed again
        try:
            with progress.step("Measuring memory"):
                memory = {side: peak_memory(pair, side, arguments.batch, settings) for side in SIDES}
        except KeyboardInterrupt:
            interrupted = True
        except WorkError as error:  # the latencies are good without it
            notes.append(str(error))
    if interrupted:
        notes.append("interrupted before its time")
    report = Report(
        pair,
        settings,
        arguments.batch,
        contestants[0].details,
        measurement,
        memory,
        where,
        notes,
        arguments.seed,
    )
    _print(report.to_dict(), report.text(), arguments.json)
    return INTERRUPTED if interrupted else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.batch < 1:
        raise OptionError(f"--batch {arguments.batch}: use 1 or more")
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
