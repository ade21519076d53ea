"""Checking a bundle's graphs for targets, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from mtl_deploy.runtime.errors import OptionError

from .linter import Finding, Target, check

_SHOWN = 3  # findings that fit on one line


class GraphFile(Protocol):
    """A graph of a bundle."""

    @property
    def path(self) -> str:
        """The file's path in the bundle."""
        ...


def check_targets(graphs: Sequence[GraphFile], read: Callable[..., bytes], targets: Sequence[Target]) -> list[str]:
    """Check that the targets' parsers can read the graphs.

    Args:
        graphs: to be checked.
        read: returns a graph's bytes.
        targets: given by ``--check-target``.

    Returns:
        Notes for people: that the targets read the graphs, and what they interpret differently than ONNX does.

    Raises:
        OptionError: a target cannot read a graph; names the target, what it does not read, and what to change.
    """
    if not targets:
        return []
    found: list[Finding] = []
    for graph in graphs:
        content = read(graph)
        for target in targets:
            found += check(content, target, graph.path)
    errors = _lines([finding for finding in found if finding.level == "error"])
    if errors:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise OptionError("; ".join(errors[:_SHOWN]) + more)
    names = ", ".join(
        target.title if target.title == target.name else f"{target.name} ({target.title})" for target in targets
    )
    reads = f"{names} read{'s' if len(targets) == 1 else ''} all {len(graphs)} graphs"
    return [reads, *_lines(found)]


def _lines(findings: Sequence[Finding]) -> list[str]:
    """Return one line per problem, however many graphs have it."""
    alike: dict[Finding, list[str]] = {}
    for finding in findings:
        alike.setdefault(replace(finding, graph=""), []).append(finding.graph)
    lines = []
    for finding, graphs in alike.items():
        others = f" and {len(graphs) - 1} more graph{'s' if len(graphs) > 2 else ''}" if len(graphs) > 1 else ""
        lines.append(str(replace(finding, graph=f"{graphs[0]}{others}")))
    return lines
