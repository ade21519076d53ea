"""What a section of a result is: a part beside the latencies that owns its options, its measurement, its figures and its tables.

A section is a folder here with a ``section.py`` that has a subclass of :class:`BatchSection` (measured at every batch size, while
the contestants live) or of :class:`RunSection` (measured once, when all batch sizes are done), and one line in
:mod:`~mtl_deploy.bench.sections.registry`. The command asks it, in this order:

1. ``add_options`` adds its options to the parser; ``settings`` reads and checks them before anything is loaded, and returns them as
   a frozen dataclass, which the plan carries. ``asked`` says whether they name the section: ``--quick`` leaves out those that are
   not asked for.
2. ``measure`` measures, or returns None where there is nothing to measure. What it returns knows its warnings and its place in the
   JSON document (:class:`SectionFigures`).
3. ``KEY.schema.json`` is the JSON Schema of that place; ``python -m mtl_deploy.bench.results.schema`` puts it into the published
   schema.
4. ``blocks`` describes its tables, sentences and plots from the JSON document. They are rendered as text and as a page.
5. ``summary`` says in one line what it found: all that a terminal shows of it without ``--details``.

``section.py`` imports its measuring modules inside ``measure``: ``--help`` and the page need none of them.
"""

from __future__ import annotations

import argparse
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Piece, Roster
from mtl_deploy.runtime.errors import DeviceLostError, MtlError

if TYPE_CHECKING:  # --help reads this file
    from mtl_deploy.bench.contestants.hosts import Host
    from mtl_deploy.bench.contestants.pair import Batch, Settings
    from mtl_deploy.bench.measurement.measure import Measurement
    from mtl_deploy.bench.plan import BenchmarkPlan
    from mtl_deploy.bench.statistics.nested import Nested
    from mtl_deploy.runtime.console.command import Progress

S = TypeVar("S")

Words: TypeAlias = "Callable[[Path, Settings], str]"
Remeasure: TypeAlias = "Callable[[Path, Settings], Mapping[str, Nested]]"


class SectionFigures(Protocol):
    """What a section has measured. One that was interrupted and holds what it had so far has a true ``interrupted``."""

    @property
    def warnings(self) -> Sequence[str]:
        """What casts doubt on its figures, one sentence each."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        ...


@dataclass(frozen=True)
class BatchContext:
    """What a section of one batch size is measured with.

    Attributes:
        plan: of the whole measurement.
        batch: what each call gets.
        hosts: the contestants by name, alive and warm; those of the last time that they were started.
        measurement: their latencies.
        progress: shows what is being measured.
    """

    plan: BenchmarkPlan
    batch: Batch
    hosts: Mapping[str, Host]
    measurement: Measurement
    progress: Progress

    @property
    def size(self) -> int:
        """Images per call."""
        return len(self.batch)


@dataclass(frozen=True)
class RunContext:
    """What a section of the whole run is measured with, when all batch sizes are done.

    Attributes:
        plan: of the whole measurement.
        batches: latencies by batch size, from the smallest; one at least.
        progress: shows what is being measured.
        again: given words for the progress line, returns a function that measures shared and separate once more, of another bundle
            or with other settings, at the smallest batch; see :mod:`~mtl_deploy.bench.rerun`.
    """

    plan: BenchmarkPlan
    batches: Mapping[int, Measurement]
    progress: Progress
    again: Callable[[Words], Remeasure]

    @property
    def smallest(self) -> int:
        """The smallest batch size."""
        return min(self.batches)


class Section(ABC, Generic[S]):
    """A part of the result.

    Attributes:
        key: its name in the plan and on the page.
        words: names it in a warning, with a verb: ``the energy was``.
        title: its heading on the page.
    """

    key: str
    words: str
    title: str

    @property
    def place(self) -> tuple[str, ...]:
        """The keys that lead to it in the JSON document, or in a batch size's part of that."""
        return (self.key,)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its place in the document: ``KEY.schema.json`` beside the section's module."""
        file = Path(inspect.getfile(type(self))).with_name(f"{self.key}.schema.json")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add its options to the command's parser."""

    @abstractmethod
    def settings(self, arguments: argparse.Namespace) -> S:
        """Return its options, checked.

        Raises:
            OptionError: one that cannot be used.
        """

    @abstractmethod
    def summary(self, found: At, roster: Roster) -> Sequence[Piece]:
        """Say in one line what it found, with the figures that matter most; nothing where there is nothing to say.

        Args:
            found: its place in the document.
            roster: the contestants' titles.
        """

    def asked(self, settings: S) -> bool:  # noqa: ARG002 - some sections are never asked for by name
        """Return whether the options ask for it by name."""
        return False


class BatchSection(Section[S]):
    """A section of each batch size."""

    @abstractmethod
    def measure(self, context: BatchContext, settings: S) -> SectionFigures | None:
        """Measure it; None where it was not asked for, or there is nothing to measure.

        Raises:
            MtlError: measuring failed; the run goes on with a warning.
        """

    @abstractmethod
    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:
        """Describe how it is shown.

        Args:
            found: its place in the document.
            batch: the batch size's.
            roster: the contestants' titles.
        """


class RunSection(Section[S]):
    """A section of the whole run."""

    @abstractmethod
    def measure(self, context: RunContext, settings: S) -> SectionFigures | None:
        """Measure it; None where it was not asked for, or there is nothing to measure.

        Raises:
            MtlError: measuring failed; the run goes on with a warning.
        """

    @abstractmethod
    def blocks(self, found: At, roster: Roster) -> list[Block]:
        """Describe how it is shown.

        Args:
            found: its place in the document.
            roster: the contestants' titles.
        """


@dataclass
class Sections:
    """The sections that were measured.

    Attributes:
        found: by key; None where one was not asked for, or failed.
        warnings: those of sections that failed.
        interrupted: whether Ctrl-C came between.
    """

    found: dict[str, SectionFigures | None]
    warnings: list[str]
    interrupted: bool = False

    def all_warnings(self) -> list[str]:
        """Return the warnings, the sections' own among them."""
        own = (warning for section in self.found.values() if section is not None for warning in section.warnings)
        return [*self.warnings, *own]

    def to_dict(self, sections: Sequence[Section[Any]]) -> dict[str, Any]:
        """Return the places in the JSON document of all sections that there are; None where one was not measured."""
        document: dict[str, Any] = {}
        for section in sections:
            *above, last = section.place
            inner = document
            for key in above:
                inner = inner.setdefault(key, {})
            measured = self.found.get(section.key)
            inner[last] = None if measured is None else measured.to_dict()
        return document


T = TypeVar("T", bound=Section[Any])


def collect(sections: Sequence[T], measure: Callable[[T], SectionFigures | None]) -> Sections:
    """Measure sections one after the other. One that fails becomes a warning: the latencies are good without it.

    After Ctrl-C no other is begun.

    Args:
        sections: in the order of measuring.
        measure: measures one.

    Raises:
        DeviceLostError: the GPU's context is unusable.
    """
    collected = Sections({section.key: None for section in sections}, [])
    for section in sections:
        try:
            found = collected.found[section.key] = measure(section)
            collected.interrupted = bool(getattr(found, "interrupted", False))
        except KeyboardInterrupt:
            collected.interrupted = True
        except DeviceLostError:
            raise
        except MtlError as error:
            collected.warnings.append(f"{section.words} not measured: {error}")
        if collected.interrupted:
            break
    return collected
