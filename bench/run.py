"""Measuring one batch size from beginning to end: processes, rounds, calls, then the sections beside them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.forms import activation_bytes, call, graphs_off
from mtl_deploy.bench.contestants.hosts import Host, LocalHost, start_host
from mtl_deploy.bench.contestants.memory import Memory, own_memory, peak_memory
from mtl_deploy.bench.contestants.pair import Batch, Pair, Settings, make_batch
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, Spec
from mtl_deploy.bench.machine.environment import warnings
from mtl_deploy.bench.measurement.agreement import Agreement, agreement, complaint
from mtl_deploy.bench.measurement.measure import Measurement, measure
from mtl_deploy.bench.results.report import Report
from mtl_deploy.bench.sections import registry as extras
from mtl_deploy.bench.sections.base import BatchContext, Section, Sections, collect
from mtl_deploy.bench.sections.engine_timings import EngineSection, measure_timings
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import DeviceLostError, MtlError, WorkError

SECONDS_A_CONTESTANT = 6.0  # of measuring, at each batch size, unless --duration says otherwise


@dataclass(frozen=True)
class Plan:
    """What is measured at every batch size.

    Attributes:
        pair: what is compared.
        specs: the contestants, the shared one first.
        settings: how they are run.
        isolated: whether each contestant gets a process of its own.
        processes: how often all contestants are started anew.
        duration: seconds to measure latency at a batch size; None: :data:`SECONDS_A_CONTESTANT` for each.
        seed: of the images, the orders and the bootstrap.
        memory: whether to measure memory too.
        sections: whether to measure the sections beside the latencies.
        environment: see :func:`~mtl_deploy.bench.machine.environment.environment`; as it was before anything ran.
        command: that was given.
        threads: the numbers of ``--threads``; the first is the settings'. Empty: ONNX Runtime's default.
        arguments: the command's options, for :mod:`~mtl_deploy.bench.sections.registry`.
        builds: the contestants with engines that were built anew; each start of all contestants takes the next ones. Empty: the
            bundle's own.
        words: what is measured, for the progress line.
    """

    pair: Pair
    specs: tuple[Spec, ...]
    settings: Settings
    isolated: bool
    processes: int
    duration: float | None
    seed: int
    memory: bool
    sections: bool
    environment: dict[str, Any]
    command: str
    threads: tuple[int, ...]
    arguments: argparse.Namespace
    builds: tuple[tuple[Spec, ...], ...] = ()
    words: str = "latency"

    @property
    def seconds(self) -> float:
        """How long latency is measured at a batch size."""
        return SECONDS_A_CONTESTANT * len(self.specs) if self.duration is None else self.duration

    @property
    def slot_seconds(self) -> float:
        """A contestant's share of that, over all rounds and processes."""
        return self.seconds / len(self.specs)

    def started(self, number: int) -> tuple[Spec, ...]:
        """Return the contestants of one start of all, which count from 0."""
        return self.builds[number % len(self.builds)] if self.builds else self.specs


@dataclass
class _Found:
    """What one batch size has given so far."""

    measurement: Measurement = field(default_factory=Measurement)
    excluded: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    activations: dict[str, int] = field(default_factory=dict)
    graphs_off: str | None = None
    sections: Sections = field(default_factory=lambda: Sections({}, []))


def run(plan: Plan, size: int, progress: Progress) -> tuple[Report, bool]:
    """Measure one batch size.

    Args:
        plan: what and how.
        size: images a call.
        progress: told where the work is.

    Returns:
        The report, and whether it was interrupted; it then holds what was measured so far.

    Raises:
        OptionError: the artifacts do not take such a batch.
        WorkError: shared and separate disagree, or running failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    batch = make_batch(plan.pair, size, plan.seed)
    found = _Found()
    interrupted = False
    rng = np.random.default_rng(plan.seed)
    try:
        for number in range(plan.processes):
            with ExitStack() as stack:
                with progress.step(f"Measuring {plan.words}, {number + 1} of {plan.processes}") as say:
                    hosts = _start(plan.started(number), plan.isolated, batch, found, stack, progress)
                    seconds = plan.seconds / plan.processes
                    try:
                        measure(hosts, batch, seconds, found.measurement, rng=rng, progress=progress.update)
                    finally:
                        found.excluded |= found.measurement.lost
                    hosts = {name: host for name, host in hosts.items() if name not in found.excluded}
                    say(f"{found.measurement.rounds} rounds")
                    _look(plan, hosts, found)
                if number == plan.processes - 1 and plan.sections:
                    found.sections = _sections(plan, batch, hosts, found, progress)
                    interrupted = found.sections.interrupted
        if plan.memory and not interrupted and not plan.isolated:  # last: the contestants are freed again
            with progress.step("Measuring memory"):
                _peaks(plan, size, found)
    except KeyboardInterrupt:
        if found.measurement.rounds == 0:
            raise
        interrupted = True
    return _report(plan, size, found, interrupted=interrupted), interrupted


def _start(
    specs: Sequence[Spec], isolated: bool, batch: Batch, found: _Found, stack: ExitStack, progress: Progress
) -> dict[str, Host]:
    """Start all contestants that are not excluded, and see that they agree; those that do not are closed and excluded."""
    hosts: dict[str, Host] = {}
    for spec in specs:
        if spec.name in found.excluded:
            continue
        progress.update(f"Starting {spec.title}")
        try:
            hosts[spec.name] = stack.enter_context(closing(start_host(spec, isolated=isolated, others=hosts)))
        except MtlError as error:
            _exclude(spec, error, found)
    expected: Mapping[str, Any] | None = None
    for name, host in list(hosts.items()):
        progress.update(f"Comparing {host.spec.title}")
        try:
            found.details[name] = host.details
            outputs = host.run(call, batch)
        except MtlError as error:
            _exclude(host.spec, error, found)
        else:
            if expected is None:
                expected = outputs
                continue
            found.agreement[name] = agreement(hosts[SHARED].spec, expected, host.spec, outputs)
            problem = complaint(host.spec, found.agreement[name])
            if problem is None:
                continue
            _exclude(host.spec, WorkError(problem), found)
        del hosts[name]
        host.close()
    return hosts


def _exclude(spec: Spec, error: MtlError, found: _Found) -> None:
    """Leave a contestant out with the reason; without shared or separate there is nothing to say."""
    if spec.name in (SHARED, SEPARATE) or isinstance(error, DeviceLostError):
        raise error
    found.excluded[spec.name] = str(error)
    if spec.name in found.measurement.samples:
        found.measurement.drop(spec.name, str(error))


def _look(plan: Plan, hosts: Mapping[str, Host], found: _Found) -> None:
    """Read what the contestants know of themselves, while they live."""
    for name, host in hosts.items():
        memory = host.run(own_memory) if plan.memory and plan.isolated else None
        if memory is not None:
            found.memory[name] = memory if name not in found.memory else max(found.memory[name], memory, key=_peak)
        activations = host.run(activation_bytes)
        if activations is not None:
            found.activations[name] = activations
        found.graphs_off = found.graphs_off or host.run(graphs_off)


def _peak(memory: Memory) -> int:
    return memory.peak


def _sections(plan: Plan, batch: Batch, hosts: Mapping[str, Host], found: _Found, progress: Progress) -> Sections:
    context = BatchContext(plan, batch, hosts, found.measurement, progress)
    measures: dict[str, tuple[str, Callable[[], Section | None]]] = {
        "engine_timings": ("the GPU timings were", partial(_timings, context))
    }
    measures |= {key: (words, partial(work, context)) for key, (words, work) in extras.BATCH_SECTIONS.items()}
    return collect(measures)


def _timings(context: BatchContext) -> Section | None:
    """Measure engines on the GPU's clock."""
    hosts = [context.hosts[name] for name in (SHARED, SEPARATE) if name in context.hosts]
    sides: list[Any] = [host.contestant for host in hosts if isinstance(host, LocalHost)]
    if not context.plan.pair.engines or not sides or context.arguments.quick:
        return None
    titles = {host.spec.name: host.spec.title for host in hosts}
    graphs = context.plan.settings.cuda_graphs
    with context.progress.step("Measuring on the GPU's clock"):
        return EngineSection(
            measure_timings(sides, context.batch, graphs=graphs, progress=context.progress.update), titles
        )


def _peaks(plan: Plan, size: int, found: _Found) -> None:
    """Measure memory in processes that do nothing else."""
    for name in (SHARED, SEPARATE):
        if name in found.measurement.names:
            try:
                found.memory[name] = peak_memory(plan.pair, name, size, plan.settings)
            except WorkError as error:  # the latencies are good without it
                found.memory.clear()
                found.sections.warnings.append(str(error))
                return


def _report(plan: Plan, size: int, found: _Found, *, interrupted: bool) -> Report:
    notes = warnings(plan.environment)
    if plan.pair.misfit is not None:
        notes.append(f"{plan.pair.misfit}; the graphs were measured")
    if plan.settings.cuda_graphs and found.graphs_off is not None:
        notes.append(f"CUDA graphs were off although asked for: {found.graphs_off}")
    for name, reason in found.excluded.items():
        notes.append(f"{name} was not measured: {reason}")
    if interrupted:
        notes.append("interrupted before its time")
    return Report(
        pair=plan.pair,
        specs={spec.name: spec for spec in plan.specs if spec.name in found.measurement.names},
        settings=plan.settings,
        batch=size,
        details=found.details,
        measurement=found.measurement,
        memory=found.memory,
        environment=plan.environment,
        notes=notes,
        seed=plan.seed,
        excluded=found.excluded,
        agreement=found.agreement,
        activations=found.activations,
        sections=found.sections,
    )
