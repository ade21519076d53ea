"""``mtl-bench --record``: which graph is fastest on which backend of this device, kept in the bundle for ``load`` to choose by."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.bench.contestants.pair import Pair
from mtl_deploy.bench.results.output_files import check_targets, write_each
from mtl_deploy.bench.sections.counts import parse_threads
from mtl_deploy.runtime.bundle.manifest import MANIFEST, MEASURED_FILE, open_bundle
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import MtlError, MtlWarning, OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.output_file import placed
from mtl_deploy.runtime.measured.choice import INT8, matching, where_int8_does_not_pay
from mtl_deploy.runtime.measured.measure import measure
from mtl_deploy.runtime.measured.record import packed, read, with_run
from mtl_deploy.runtime.measured.text import text
from mtl_deploy.runtime.selection import on_gpu, what_loads

_WITH = ("path", "record", "threads", "json", "force", "quiet")
"""What may be given beside it."""


def record(arguments: argparse.Namespace, defaults: argparse.Namespace) -> int:
    """Measure a bundle's graphs here, write the figures into the bundle, and print them.

    Args:
        arguments: of the command.
        defaults: what they are where nothing is given.

    Raises:
        OptionError: an option is for comparing shared with separate, or the bundle cannot be written.
        BundleError: there is no bundle, or a file of it is damaged.
    """
    given = [name for name, value in vars(arguments).items() if name not in _WITH and value != getattr(defaults, name)]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise OptionError(f"--record measures the shared graphs, on each backend: leave out {names}")
    threads = parse_threads(arguments.threads)
    if len(threads) > 1:
        raise OptionError(f"--threads {arguments.threads}: --record measures with one number of threads; name one")
    if not (Path(arguments.path).is_dir() or Path(arguments.path).name == MANIFEST):
        raise OptionError(f"{arguments.path}: --record measures all graphs of a bundle; name the bundle")
    bundle = open_bundle(arguments.path)
    target = bundle.path / MEASURED_FILE
    to_file = arguments.json not in (None, "-")
    if to_file:
        check_targets({"--json": arguments.json}, force=arguments.force, inputs=(Path(arguments.path),))
    if not os.access(bundle.path, os.W_OK):
        raise OptionError(
            f"--record {target}: you may not write there; copy the bundle to a place where you may, or give yourself the right"
        )
    progress = Progress(quiet=arguments.quiet)
    with progress.step("Measuring the graphs") as say:
        run = measure(
            bundle,
            threads=threads[0] if threads else None,
            say=lambda what: progress.update(f"Measuring the graphs: {what}"),
        )
        say(f"{len(run.candidates)} candidates")
    former = read(bundle.path)
    if former.problem is not None:
        warnings.warn(former.problem.partition("; measure again")[0] + "; it is replaced", MtlWarning, stacklevel=2)
    content = packed(with_run(former.runs, bundle.manifest, run))
    with placed("--record", target, force=True) as beside:
        disk.write_new(beside, content)
    document = json.dumps({"bundle": str(bundle.path), "measured": run.to_dict()}, ensure_ascii=False) + "\n"
    if to_file:
        write_each({"--json": (arguments.json, lambda: document)}, force=arguments.force)
    sys.stdout.write(document if arguments.json == "-" else f"{text(run)}{what_loads(bundle, run.threads)}")
    return 0


def _is_int8(pair: Pair, providers: Sequence[str] | None) -> bool:
    graphs = not pair.engines and pair.shared.precision in INT8
    return graphs and not (pair.backend == "onnxruntime" and on_gpu(providers))


def int8_notes(pair: Pair, threads: int | None, providers: Sequence[str] | None) -> tuple[str, ...]:
    """Return what the bundle's measurements say about INT8 that does not pay on the backend that is measured.

    Args:
        pair: what is compared.
        threads: of the backend.
        providers: of ONNX Runtime.
    """
    if not _is_int8(pair, providers):
        return ()
    reading = read(pair.bundle.path)
    if reading.problem is not None:
        return (reading.problem,)
    run, _ = matching(reading, (pair.backend,), threads)
    return () if run is None else tuple(where_int8_does_not_pay(run, (pair.backend,)))


def int8_measured(
    pair: Pair, threads: int | None, providers: Sequence[str] | None, progress: Progress
) -> tuple[str, ...]:
    """Return the same from a short measurement, where the bundle's own do not count here; nothing where they do.

    Args:
        pair: what is compared.
        threads: of the backend.
        providers: of ONNX Runtime.
        progress: shows the step.
    """
    if not _is_int8(pair, providers) or matching(read(pair.bundle.path), (pair.backend,), threads)[0] is not None:
        return ()
    with progress.step("Comparing INT8 with FP32") as say:
        try:
            run = measure(pair.bundle, threads=threads, backends=(pair.backend,))
        except MtlError as error:
            say(f"left out: {error}")
            return ()
    return tuple(where_int8_does_not_pay(run, (pair.backend,)))
