"""Measuring one batch size from beginning to end: processes, rounds, calls, then the sections beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.forms import activation_bytes, call, graphs_off
from mtl_deploy.bench.contestants.hosts import Host, start_host
from mtl_deploy.bench.contestants.memory import Memory, own_memory, peak_memory
from mtl_deploy.bench.contestants.pair import Batch, make_batch
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, Spec
from mtl_deploy.bench.machine.environment import warnings
from mtl_deploy.bench.measurement.agreement import Agreement, agreement, complaint
from mtl_deploy.bench.measurement.measure import Measurement, measure
from mtl_deploy.bench.results.report import Report
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchContext, Sections, collect
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import DeviceLostError, MtlError, WorkError

from .plan import BenchmarkPlan


@dataclass
class _BatchSoFar:
    """What one batch size has given so far."""

    measurement: Measurement = field(default_factory=Measurement)
    excluded: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    activations: dict[str, int] = field(default_factory=dict)
    graphs_off: str | None = None
    sections: Sections = field(default_factory=lambda: Sections({}, []))


def measure_batch(plan: BenchmarkPlan, size: int, progress: Progress) -> tuple[Report, bool]:
    """Measure one batch size.

    Args:
        plan: what and how.
        size: images per call.
        progress: shows what is being measured.

    Returns:
        The report, and whether it was interrupted; it then holds what was measured so far.

    Raises:
        OptionError: the artifacts do not take such a batch.
        WorkError: shared and separate disagree, or running failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    batch = make_batch(plan.pair, size, plan.seed)
    found = _BatchSoFar()
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
                if number == plan.processes - 1 and plan.beside:
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
    specs: Sequence[Spec], isolated: bool, batch: Batch, found: _BatchSoFar, stack: ExitStack, progress: Progress
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


def _exclude(spec: Spec, error: MtlError, found: _BatchSoFar) -> None:
    """Leave a contestant out with the reason; without shared or separate there is nothing to say."""
    if spec.name in (SHARED, SEPARATE) or isinstance(error, DeviceLostError):
        raise error
    found.excluded[spec.name] = str(error)
    if spec.name in found.measurement.samples:
        found.measurement.drop(spec.name, str(error))


def _look(plan: BenchmarkPlan, hosts: Mapping[str, Host], found: _BatchSoFar) -> None:
    """Read what the contestants know about themselves, while they live."""
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


def _sections(
    plan: BenchmarkPlan, batch: Batch, hosts: Mapping[str, Host], found: _BatchSoFar, progress: Progress
) -> Sections:
    context = BatchContext(plan, batch, hosts, found.measurement, progress)
    return collect(registry.batch_sections(), lambda section: section.measure(context, plan.sections[section.key]))


def _peaks(plan: BenchmarkPlan, size: int, found: _BatchSoFar) -> None:
    """Measure memory in processes that do nothing else."""
    for name in (SHARED, SEPARATE):
        if name in found.measurement.names:
            try:
                found.memory[name] = peak_memory(plan.pair, name, size, plan.settings)
            except WorkError as error:  # the latencies are good without it
                found.memory.clear()
                found.sections.warnings.append(str(error))
                return


def _report(plan: BenchmarkPlan, size: int, found: _BatchSoFar, *, interrupted: bool) -> Report:
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
        batch=size,
        details=found.details,
        measurement=found.measurement,
        memory=found.memory,
        notes=notes,
        excluded=found.excluded,
        agreement=found.agreement,
        activations=found.activations,
        sections=found.sections,
    )
