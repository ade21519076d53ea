"""Sections of a result beside the latencies, which other modules measure: each is printed and stored in the same way."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.measurement.measure import Measurement
from mtl_deploy.runtime.errors import DeviceLostError, MtlError

if TYPE_CHECKING:
    from mtl_deploy.bench.results.report import Report
    from mtl_deploy.bench.run import Plan
    from mtl_deploy.runtime.console.command import Progress


class Section(Protocol):
    """A part of the result."""

    @property
    def warnings(self) -> Sequence[str]:
        """What speaks against its figures, a sentence each."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        ...

    def text(self) -> str:
        """Return it for people: a table and at most two sentences, without a newline at the end."""
        ...


@dataclass(frozen=True)
class BatchContext:
    """What a section of one batch size is measured with.

    Attributes:
        plan: the whole measurement's.
        batch: what each call gets.
        hosts: the contestants by name, alive and warm; those of the last time that they were started.
        measurement: their latencies.
        progress: told where the work is.
    """

    plan: Plan
    batch: Batch
    hosts: Mapping[str, Host]
    measurement: Measurement
    progress: Progress

    @property
    def size(self) -> int:
        """Images a call."""
        return len(self.batch)

    @property
    def arguments(self) -> argparse.Namespace:
        """The command's options."""
        return self.plan.arguments


@dataclass(frozen=True)
class RunContext:
    """What a section of the whole run is measured with, when all batch sizes are done.

    Attributes:
        plan: the whole measurement's.
        reports: of the batch sizes that were measured, growing; one at least.
        progress: told where the work is.
    """

    plan: Plan
    reports: Sequence[Report]
    progress: Progress

    @property
    def arguments(self) -> argparse.Namespace:
        """The command's options."""
        return self.plan.arguments


@dataclass
class Sections:
    """The sections that were measured, in the order of their tables.

    Attributes:
        found: by their key in the JSON document; None where one was not asked for, or failed.
        warnings: those of sections that failed.
        interrupted: whether Ctrl-C came between.
    """

    found: dict[str, Section | None]
    warnings: list[str]
    interrupted: bool = False

    def text(self) -> list[str]:
        """Return each section for people."""
        return [section.text() for section in self.found.values() if section is not None]

    def all_warnings(self) -> list[str]:
        """Return the warnings, the sections' own among them."""
        own = (warning for section in self.found.values() if section is not None for warning in section.warnings)
        return [*self.warnings, *own]

    def to_dict(self) -> dict[str, Any]:
        """Return the sections' places in the JSON document."""
        return {key: None if section is None else section.to_dict() for key, section in self.found.items()}


def collect(measures: Mapping[str, tuple[str, Callable[[], Section | None]]]) -> Sections:
    """Measure sections one after the other. One that fails becomes a warning: the latencies are good without it.

    After Ctrl-C no other is begun. A section that was interrupted and holds what it had so far says so with a true ``interrupted``.

    Args:
        measures: by key: the section's name in words, and what measures it, or returns None where it was not asked for.

    Raises:
        DeviceLostError: the GPU's context is unusable.
    """
    sections = Sections(dict.fromkeys(measures), [])
    for key, (words, measure) in measures.items():
        try:
            found = sections.found[key] = measure()
            sections.interrupted = bool(getattr(found, "interrupted", False))
        except KeyboardInterrupt:
            sections.interrupted = True
        except DeviceLostError:
            raise
        except MtlError as error:
            sections.warnings.append(f"{words} not measured: {error}")
        if sections.interrupted:
            break
    return sections
