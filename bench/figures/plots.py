"""Which plots a result has, and how their files are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Roster, Sentence, Table
from mtl_deploy.bench.html.comparison import ridges
from mtl_deploy.bench.html.svg.plots import Drawing, draw
from mtl_deploy.bench.results.tables import contestants, throughputs
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchSection, RunSection

from .paper import Paper


def drawings(document: Mapping[str, Any]) -> dict[str, str]:
    """Return every plot of a result's page, drawn for paper, in the page's order.

    Args:
        document: what ``mtl-bench --json`` wrote.

    Returns:
        SVG by name: the section's key; with a number where a section has several plots, and with ``-batchN`` where several batch
        sizes were measured.
    """
    at = At(document)
    found: dict[str, str] = {}
    for name, plots in _plots(at):
        for place, plot in enumerate(plots, 1):
            found[f"{name}-{place}" if len(plots) > 1 else name] = draw(plot, Paper)
    return found


def _plots(at: At) -> Iterator[tuple[str, list[Drawing]]]:
    roster, batches = Roster(at), list(at["batches"])
    for batch in batches:
        end = f"-batch{batch['batch'].text()}" if len(batches) > 1 else ""
        yield f"comparison{end}", _only(contestants(at, batch, roster))
        yield f"latency{end}", [*ridges(batch, roster)]
        for section in registry.SECTIONS:
            if isinstance(section, BatchSection) and (found := batch.down(section.place)):
                yield f"{section.key}{end}", _only(section.blocks(found, batch, roster))
    if len(batches) > 1:
        yield "throughput", _only(throughputs(at, batches, roster))
    for section in registry.SECTIONS:
        if isinstance(section, RunSection) and (found := at.down(section.place)):
            yield section.key, _only(section.blocks(found, roster))


def _only(blocks: Iterable[Block]) -> list[Drawing]:
    return [block for block in blocks if not isinstance(block, (Table, Sentence))]
