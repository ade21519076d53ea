"""Contestants and sections of other modules: their options, and one function each, which returns None where not asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import OptionError, WorkError

if TYPE_CHECKING:  # --help reads this file
    from mtl_deploy.bench.contestants.pair import Pair, Settings
    from mtl_deploy.bench.contestants.specs import Spec

    from .base import BatchContext, RunContext, Section

STARTS = 5  # cold ones of each contestant, unless --starts says otherwise
_MOST_STARTS = 1000
_MOST_BUILDS = 100
_RATE_S = 6.0  # of a rate and contestant, without --duration
_ENERGY_S = 3.0  # of a contestant, where nobody asked for energy


def add_options(made: argparse.ArgumentParser) -> None:
    """Add the options of these contestants and sections, in groups of their own."""
    peers = made.add_argument_group("other ways to run the network, in turn with the rest")
    peers.add_argument(
        "--peers", metavar="NAME,...", help="openvino, onnxruntime:PROVIDER such as onnxruntime:CUDA, or all"
    )
    peers.add_argument("--checkpoint", type=Path, metavar="FILE", help="PyTorch's forward, eager and torch.compile")
    peers.add_argument("--model", metavar="MODULE:FACTORY", help="the checkpoint's network, as for mtl-export")
    peers.add_argument("--trust-pickle", action="store_true", help="let the checkpoint run code, as for mtl-export")
    beside = made.add_argument_group("beside latency")
    beside.add_argument(
        "--rate", metavar="R[,R...]|sweep", help="open loop: requests a second, or shares of the closed loop"
    )
    beside.add_argument("--deadline", type=float, metavar="MS", help="search the highest rate whose p99 keeps it")
    beside.add_argument("--heads", metavar="N,...", help="scaling over 1 to 8 synthetic heads, such as 1,2,4,8")
    beside.add_argument(
        "--starts", type=int, metavar="N", help=f"cold starts of shared and separate (default: {STARTS}); 0: none"
    )
    beside.add_argument(
        "--energy",
        action=argparse.BooleanOptionalAction,
        help="joules an image, of all contestants (default: of shared and separate, where the machine tells)",
    )
    beside.add_argument("--no-where", action="store_true", help="leave out where the time goes in the shared artifact")
    beside.add_argument(
        "--builds",
        type=int,
        default=1,
        metavar="N",
        help="build engines anew so often, since builds differ (default: 1)",
    )


def check_options(arguments: argparse.Namespace) -> None:
    """Check them before anything is loaded.

    Raises:
        OptionError: one that cannot be used.
    """
    if arguments.starts is not None and not 0 <= arguments.starts <= _MOST_STARTS:
        raise OptionError(f"--starts {arguments.starts}: use 0 to {_MOST_STARTS}")
    if not 1 <= arguments.builds <= _MOST_BUILDS:
        raise OptionError(f"--builds {arguments.builds}: use 1 to {_MOST_BUILDS}")
    if arguments.processes is not None and arguments.processes < arguments.builds:
        raise OptionError(
            f"--builds {arguments.builds}: each start of the contestants runs another build, and --processes "
            f"{arguments.processes} are fewer; use --processes {arguments.builds} or more"
        )
    if arguments.checkpoint is None and (arguments.model is not None or arguments.trust_pickle):
        option = "--model" if arguments.model is not None else "--trust-pickle"
        raise OptionError(f"{option} is about a checkpoint; name it with --checkpoint")
    if arguments.checkpoint is not None and not arguments.checkpoint.exists():
        raise OptionError(f"--checkpoint {arguments.checkpoint}: no such file")
    if arguments.peers is not None:
        from mtl_deploy.bench.contestants.peers.peers import parse_peers

        parse_peers(arguments.peers)
    if arguments.heads is not None:
        from .heads import parse_heads

        parse_heads(arguments.heads)
    if arguments.rate is not None or arguments.deadline is not None:
        from mtl_deploy.bench.sections.load.rates import parse_rates, require_deadline

        parse_rates(arguments.rate or "sweep")
        require_deadline(arguments.deadline)


def asked(arguments: argparse.Namespace) -> bool:
    """Return whether a section was asked for by name: ``--quick`` leaves the others out."""
    named = (arguments.rate, arguments.deadline, arguments.heads, arguments.energy, arguments.starts)
    return any(named) or "," in (arguments.threads or "")


def extra_specs(pair: Pair, settings: Settings, arguments: argparse.Namespace, *, isolated: bool) -> list[Spec]:
    """Return the contestants beside the bundle's own: peers and baselines that were asked for.

    Raises:
        OptionError: a peer is what the run itself uses.
        BundleError: the bundle has no graph for a peer.
        BackendError: ONNX Runtime is missing.
    """
    specs: list[Spec] = []
    if arguments.checkpoint is not None:
        from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs

        specs += baseline_specs(
            pair.bundle,
            arguments.checkpoint,
            arguments.model,
            arguments.trust_pickle,
            settings,
            precision=pair.shared.precision,
            engines=pair.engines,
        )
    if arguments.peers is not None:
        from mtl_deploy.bench.contestants.peers.peers import parse_peers, peer_specs

        peers = parse_peers(arguments.peers)
        specs += peer_specs(pair.bundle, pair.shared, peers, settings, isolated=isolated)
    return specs


def notes(pair: Pair, arguments: argparse.Namespace) -> list[str]:
    """Return what speaks against figures of these contestants before anything runs."""
    if arguments.checkpoint is None or not arguments.checkpoint.is_file():
        return []
    from mtl_deploy.bench.contestants.peers.pytorch import checkpoint_warning

    found = checkpoint_warning(pair.bundle, arguments.checkpoint)
    return [] if found is None else [found]


def where(context: BatchContext) -> Section | None:
    """Measure where the time goes inside the shared artifact."""
    if context.arguments.no_where or context.arguments.quick:
        return None
    from mtl_deploy.bench.sections.where import section as where_section

    with context.progress.step("Profiling the shared artifact"):
        return where_section.where(context)


def open_loop(context: BatchContext) -> Section | None:
    """Measure latency under load."""
    arguments = context.arguments
    if arguments.rate is None and arguments.deadline is None:
        return None
    from mtl_deploy.bench.contestants.specs import CONCURRENT, SEPARATE, SHARED
    from mtl_deploy.bench.sections.load.open_loop import measure_open_loop
    from mtl_deploy.bench.sections.load.rates import parse_rates

    names = [name for name in (SHARED, SEPARATE, CONCURRENT) if name in context.hosts]
    with context.progress.step("Measuring latency under load"):
        return measure_open_loop(
            {name: context.hosts[name] for name in names},
            context.batch,
            rates=parse_rates(arguments.rate or "sweep"),
            deadline_ms=arguments.deadline,
            seconds=_RATE_S if context.plan.duration is None else context.plan.duration / len(names),
            seed=context.plan.seed,
            closed_loop_per_s={name: 1000 / float(context.measurement.calls(name).mean()) for name in names},
            progress=context.progress.update,
        )


def energy(context: BatchContext) -> Section | None:
    """Measure the energy of an image: where the machine tells, or with the reason why it does not where it was asked for.

    Raises:
        WorkError: it was asked for, and nothing can be read.
    """
    wanted = context.arguments.energy
    if wanted is False or (wanted is None and context.arguments.quick):
        return None
    from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, SUBSET

    from .energy import find_meters, measure_energy

    found = find_meters()
    hosts = {
        name: host
        for name, host in context.hosts.items()
        if (host.spec.kind != SUBSET if wanted else name in (SHARED, SEPARATE))
    }
    if found.meters:
        with context.progress.step("Measuring energy"):
            seconds = context.plan.slot_seconds if wanted else _ENERGY_S
            measured = measure_energy(
                hosts,
                context.batch,
                found.meters,
                seconds=seconds,
                images=context.size,
                progress=context.progress.update,
            )
        if measured is not None:
            return measured
    if wanted:
        meters = [f"{meter.source} told nothing of these contestants" for meter in found.meters]
        raise WorkError(f"nothing here tells of it: {'; '.join([*meters, *found.missing])}")
    return None


def break_even(context: RunContext) -> Section | None:
    """Say from which number of tasks and which batch sharing pays."""
    if context.arguments.quick:
        return None
    from mtl_deploy.bench.sections.where.section import sharing_pays

    found = sharing_pays(context)
    return found if found.rows or len(found.batches) > 1 else None


def cold_start(context: RunContext) -> Section | None:
    """Measure from the start of a process to its first prediction."""
    plan, starts = context.plan, context.arguments.starts
    if starts is None:
        starts = 0 if context.arguments.quick else STARTS
    if not starts:
        return None
    from mtl_deploy.bench.contestants.pair import make_batch
    from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED

    from .cold_start import measure_cold_start

    specs = [spec for spec in plan.specs if spec.name in (SHARED, SEPARATE)]
    batch = make_batch(plan.pair, context.reports[0].batch, plan.seed)
    with context.progress.step("Measuring cold starts"):
        return measure_cold_start(specs, batch, starts=starts, seed=plan.seed, progress=context.progress.update)


def threads(context: RunContext) -> Section | None:
    """Measure with each number of threads of ``--threads``.

    Raises:
        WorkError: engines were measured, which have no such setting.
    """
    plan = context.plan
    if len(plan.threads) < 2:
        return None
    if plan.pair.engines:
        raise WorkError("--threads is ONNX Runtime's, and engines were measured; add --backend onnxruntime")
    from mtl_deploy.bench.rerun import again

    from .scaling import measure_threads

    return measure_threads(
        plan.threads,
        again(context, lambda _, settings: f"{settings.threads} thread{'s' if settings.threads != 1 else ''}"),
        plan.pair.bundle.path / plan.pair.shared.path,
        plan.settings,
        batch=context.reports[0].batch,
        seed=plan.seed,
        progress=context.progress.update,
    )


def heads(context: RunContext) -> Section | None:
    """Measure with one to eight synthetic heads.

    Raises:
        WorkError: engines were measured; the networks are graphs.
    """
    if context.arguments.heads is None:
        return None
    from mtl_deploy.bench.rerun import again

    from .heads import make_heads, parse_heads
    from .scaling import measure_heads

    pair = context.plan.pair
    if pair.engines:
        raise WorkError(
            "the networks that are made for it are graphs, and engines were measured; add --backend onnxruntime"
        )
    with TemporaryDirectory(prefix="mtl-bench-") as folder:
        with context.progress.step("Making networks of synthetic heads"):
            counts = parse_heads(context.arguments.heads)
            made = make_heads(pair.bundle.path, counts, pair.shared.precision, Path(folder))
        names = {path: f"{count} head{'s' if count > 1 else ''}" for count, path in made.items()}
        return measure_heads(
            made,
            again(context, lambda path, _: names[path]),
            context.plan.settings,
            precision=pair.shared.precision,
            backend=pair.shared.backend,
            seed=context.plan.seed,
            progress=context.progress.update,
        )


BATCH_SECTIONS: Mapping[str, tuple[str, Callable[[BatchContext], Section | None]]] = {
    "where": ("where the time goes was", where),
    "open_loop": ("the latency under load was", open_loop),
    "energy": ("the energy was", energy),
}
"""By key in the JSON document: in words, for a warning, and what measures it; in the order of measuring and printing."""

RUN_SECTIONS: Mapping[str, tuple[str, Callable[[RunContext], Section | None]]] = {
    "break_even": ("the break-even was", break_even),
    "cold_start": ("the cold start was", cold_start),
    "threads": ("the scaling with threads was", threads),
    "heads": ("the scaling with heads was", heads),
}
