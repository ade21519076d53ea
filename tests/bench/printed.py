"""What a terminal shows of a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.sections.base import BatchSection, RunSection, Section


def printed(section: Section[Any], found: Any, titles: Mapping[str, str] | None = None) -> str:
    """Return the text of what a section measured, by way of its place in the document."""
    place, roster = (
        At(found.to_dict()),
        Roster(At({"contestants": {n: {"title": t} for n, t in (titles or {}).items()}})),
    )
    if isinstance(section, BatchSection):
        return "\n\n".join(terminal.render(section.blocks(place, At({"batch": 1}), roster)))
    assert isinstance(section, RunSection)
    return "\n\n".join(terminal.render(section.blocks(place, roster)))
