"""From the command's options and the bundle to the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mtl_deploy.bench.contestants.pair import Pair, Settings, find_pair, require_batch
from mtl_deploy.bench.contestants.peers.builds import built_specs, make_builds
from mtl_deploy.bench.contestants.specs import Spec, chosen_specs
from mtl_deploy.bench.machine.environment import environment
from mtl_deploy.bench.sections import registry
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.temporary import temporary_folder

from .options import RunOptions
from .peer_options import names_openvino, peer_contestants, peer_notes
from .plan import BenchmarkPlan
from .record import int8_notes


@contextmanager
def planned(options: RunOptions, command: str, progress: Progress) -> Iterator[BenchmarkPlan]:
    """Yield the plan; engines that are built for it live in a temporary folder until the block ends.

    Args:
        options: of the command.
        command: that was given, for the result.
        progress: shows what is being built.

    Raises:
        OptionError: the options do not fit the bundle.
        BundleError: the bundle has not what is to be compared.
    """
    plan = make_plan(options, command)
    with temporary_folder() as folder:
        if options.peers.builds > 1:
            bundles = make_builds(plan.pair.bundle.path, plan.pair.shared, options.peers.builds, folder, progress)
            plan = replace(plan, builds=tuple(built_specs(plan.specs, bundle) for bundle in bundles))
        yield plan


def make_plan(options: RunOptions, command: str) -> BenchmarkPlan:
    """Return the plan, without engines that are built anew; see :func:`planned`."""
    threads = options.threads[0] if options.threads else None
    pair = find_pair(options.path, options.precision, options.providers, options.backend, threads)
    if options.backend is None and pair.backend == "openvino" and names_openvino(options.peers):
        pair = find_pair(
            options.path, options.precision, options.providers, "onnxruntime", threads
        )  # it is what it is compared with
    backend = None if pair.engines else pair.backend
    settings = Settings(options.providers, threads, options.spinning, options.cuda_graphs, backend)
    for size in options.batches:  # not after minutes of measuring
        require_batch(pair, size)
    isolated = not pair.engines if options.isolation is None else options.isolation == "process"
    return BenchmarkPlan(
        pair=pair,
        specs=_specs(pair, settings, options, isolated=isolated),
        settings=settings,
        batches=options.batches,
        isolated=isolated,
        processes=options.processes,
        duration=options.duration,
        seed=options.seed,
        memory=options.memory,
        quick=options.quick or options.recipe is not None,
        beside=not (options.quick or options.recipe) or registry.asked(options.sections),
        sections=options.sections,
        environment=environment(),
        command=command,
        notes=(*peer_notes(pair, options.peers), *int8_notes(pair, threads, options.providers)),
    )


def _specs(pair: Pair, settings: Settings, options: RunOptions, *, isolated: bool) -> tuple[Spec, ...]:
    extra = peer_contestants(pair, settings, options.peers, isolated=isolated)
    only = options.only
    if only is not None and extra:
        names = [spec.name for spec in extra]
        if options.quick or options.recipe is not None:
            only = (*only, *names)
        elif not set(names) & set(only):
            raise OptionError(
                f"--contestants leaves out all that --checkpoint and --peers add: name {', '.join(names)} too"
            )
    return tuple(chosen_specs(pair, settings, only=only, without=options.without, add=options.add, extra=extra))
