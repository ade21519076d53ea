"""Checking a bundle's graphs for targets, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from mtl_deploy.runtime.errors import OptionError

from .linter import INT8_OPSET, Finding, Target, check

G = TypeVar("G", bound="GraphFile")

_SHOWN = 3  # findings that fit on one line


class GraphFile(Protocol):
    """A graph of a bundle."""

    @property
    def path(self) -> str:
        """The file's path in the bundle."""
        ...

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16``, ``int8`` or ``int8-cpu``."""
        ...


def for_tensorrt(graphs: Sequence[G]) -> list[G]:
    """Return the graphs that TensorRT is meant to read: all but those in the style of processors."""
    return [graph for graph in graphs if graph.precision != "int8-cpu"]


def check_targets(graphs: Sequence[G], read: Callable[[G], bytes], targets: Sequence[Target]) -> list[str]:
    """Check that the targets' parsers can read the graphs.

    Args:
        graphs: to be checked; those that are for processors are not.
        read: returns a graph's bytes.
        targets: given by ``--check-target``.

    Returns:
        Notes for people: what the targets interpret differently than ONNX does.

    Raises:
        OptionError: a target cannot read a graph; names the target, what it does not read, and what to change.
    """
    found: list[Finding] = []
    for graph in for_tensorrt(graphs) if targets else ():
        content = read(graph)
        for target in targets:
            found += _first_cause(check(content, target, graph.path))
    errors = _lines([finding for finding in found if finding.level == "error"])
    if errors:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise OptionError("; ".join(errors[:_SHOWN]) + more)
    return _lines(found)


def read_by(targets: Sequence[Target], graphs: Sequence[GraphFile]) -> list[dict[str, Any]]:
    """Return the manifest's record of the targets that :func:`check_targets` has passed, and of which graphs."""
    paths = [graph.path for graph in for_tensorrt(graphs)]
    return [
        {"name": target.name, "library": target.library, "version": target.version, "graphs": paths}
        for target in targets
    ]


def describe_targets(records: Sequence[Mapping[str, Any]], graphs: Sequence[GraphFile]) -> str:
    """Return what the targets read, one line each; empty where none was asked about."""
    meant = {graph.path for graph in for_tensorrt(graphs)}
    others = [graph.path for graph in graphs if graph.path not in meant]
    lines = []
    for record in records:
        title = f"{'TensorRT-RTX' if record['library'] == 'tensorrt-rtx' else 'TensorRT'} {record['version']}"
        checked = meant & set(record["graphs"])
        which = "its graph" if len(meant) == 1 else f"all {len(meant)} graphs"
        if checked != meant:
            which = f"{len(checked)} of {len(meant)} graphs; others came later"
        lines.append(f"Target {record['name']} ({title}) reads {which}.\n")
    if lines and others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        lines.append(
            f"  {others[0]}{more}: not checked, as INT8 in this style is for processors; TensorRT has int8.onnx.\n"
        )
    return "".join(lines)


def _first_cause(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of a graph; of one that is too new for its target in INT8 only that, as the others follow from it."""
    cause = [finding for finding in findings if INT8_OPSET in finding.remedy]
    return cause or list(findings)


def _lines(findings: Sequence[Finding]) -> list[str]:
    """Return one line per problem, however many nodes and graphs have it."""
    alike: dict[Finding, list[Finding]] = {}
    for finding in findings:
        alike.setdefault(replace(finding, graph="", subject=""), []).append(finding)
    lines = []
    for found in alike.values():
        graphs = list(dict.fromkeys(finding.graph for finding in found))
        subjects = {finding.subject for finding in found}
        graph = graphs[0] + (
            f" and {len(graphs) - 1} more graph{'s' if len(graphs) > 2 else ''}" if len(graphs) > 1 else ""
        )
        subject = found[0].subject + (f" and {len(subjects) - 1} more" if len(subjects) > 1 else "")
        lines.append(str(replace(found[0], graph=graph, subject=subject)))
    return lines
