"""The sections that there are: one line each, in the order of measuring and showing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .base import BatchSection, RunSection, Section
from .break_even.section import BreakEvenSection
from .cold_start.section import ColdStartSection
from .energy.section import EnergySection
from .engine_timings.section import EngineTimingsSection
from .load.section import OpenLoopSection
from .modes.section import ModesSection
from .scaling.heads_section import HeadsSection
from .scaling.threads_section import ThreadsSection
from .where.section import WhereSection

SECTIONS: tuple[Section[Any], ...] = (
    EngineTimingsSection(),
    WhereSection(),
    OpenLoopSection(),
    ModesSection(),
    EnergySection(),
    BreakEvenSection(),
    ColdStartSection(),
    ThreadsSection(),
    HeadsSection(),
)


def batch_sections() -> list[BatchSection[Any]]:
    """Return the sections of each batch size."""
    return [section for section in SECTIONS if isinstance(section, BatchSection)]


def run_sections() -> list[RunSection[Any]]:
    """Return the sections of the whole run."""
    return [section for section in SECTIONS if isinstance(section, RunSection)]


def add_options(made: argparse.ArgumentParser) -> None:
    """Add the options of all sections, in a group of their own."""
    group = made.add_argument_group("besides latency")
    for section in SECTIONS:
        section.add_options(group)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of all sections, checked, by the sections' keys.

    Raises:
        OptionError: one that cannot be used.
    """
    return {section.key: section.settings(arguments) for section in SECTIONS}


def asked(found: Mapping[str, Any]) -> bool:
    """Return whether the options ask for a section by name: ``--quick`` leaves the others out.

    Args:
        found: see :func:`settings`.
    """
    return any(section.asked(found[section.key]) for section in SECTIONS)
