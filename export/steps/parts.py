"""The graphs in parts, for ``--split``: backbone and heads of every precision, proven equal to the whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.calibration.split.cut import PartFile, split
from mtl_deploy.calibration.split.stage import Costs, Cut, cut_graph
from mtl_deploy.export.graph.cost import cost
from mtl_deploy.export.graph.sizes import at_size
from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.bundle.manifest import Part
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import FallbackWarning, VerificationError

from .outputs import Bound
from .precisions import Verified


@dataclass(frozen=True)
class InParts:
    """The graphs of a bundle that are cut.

    Attributes:
        cuts: by precision.
        left_out: why a precision is missing.
    """

    cuts: Mapping[str, Cut] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The manifest's entries."""
        return tuple(part for cut in self.cuts.values() for part in cut.parts)

    def sharing(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest's record of what is shared, with what cutting costs."""
        records = {precision: cut.record for precision, cut in self.cuts.items()}
        return {**record, "cut": records} if records else dict(record)


def plan_split(bound: Bound, options: Options) -> Costs | None:
    """Find where the graph will be cut, before the long work; return what each part costs, or None if that was not asked for.

    Raises:
        OptionError: there is one task only, or the tasks share nothing.
    """
    return _costs(bound, split(bound.graphs[0].content())) if options.split else None


def split_graphs(
    verified: Verified, bound: Bound, costs: Costs | None, options: Options, progress: Progress
) -> InParts:
    """Cut the shared graph of each precision, if that was asked for.

    Raises:
        VerificationError: the parts do not compute what the graph computes.
    """
    if costs is None:
        return InParts()
    images = [images for images, _ in bound.samples]
    cuts: dict[str, Cut] = {}
    left_out: dict[str, str] = {}
    for graph, artifact in zip(verified.graphs, verified.artifacts, strict=True):
        if graph.role != "shared":
            continue
        with progress.step(f"Splitting {graph.path}") as say:
            content = graph.content()
            floors = {row.task: row.floor or 0.0 for row in verified.rows if row.artifact == graph.path}
            try:
                cut = cut_graph(
                    content,
                    artifact,
                    bound.signature.preprocessing,
                    images,
                    costs,
                    threads=options.threads,
                    floors=floors,
                )
            except VerificationError as error:
                if graph.precision == "fp32":
                    raise
                left_out[f"split {graph.precision}"] = str(error)
                warnings.warn(f"{graph.path} is not split: {error}", FallbackWarning, stacklevel=2)
                continue
            cuts[graph.precision] = cut
            say(describe(cut, bound.signature))
    return InParts(cuts, left_out)


def _costs(bound: Bound, parts: Sequence[PartFile]) -> Costs:
    """Count the FP32 parts' parameters and multiply-adds; those of other precisions have the same."""
    preprocessing = bound.signature.preprocessing
    counted = at_size(bound.graphs[0].model, (preprocessing.height, preprocessing.width))
    nodes = {node.outputs[0].name: node for node in counted.graph if node.outputs}
    found = {}
    for part in parts:
        own = cost(nodes[name] for name in part.nodes if name in nodes)  # without what is constant at this size
        found[frozenset(part.tasks)] = own.parameters, own.multiply_adds
    return found


def describe(cut: Cut, signature: Signature) -> str:
    """For people: how many parts there are, whether they equal the whole to the bit, and what the cut costs."""
    tasks = {task.name for task in signature.tasks}
    crossing = {border.name: border for part in cut.parts for border in part.outputs if border.name not in tasks}
    least = cut.parts[0].batch_min
    total = sum(border.size_in_bytes(least) for border in crossing.values())
    equal = "equal to the bit" if cut.record["exact"] else "equal within rounding"
    ratio = cut.record.get("ratio")
    cost = "" if ratio is None else f"; they take {ratio:.2f} times the whole graph's processor time"
    return f"{len(cut.parts)} parts, {equal}, {total / 1e3:,.0f} kB between them per image{cost}"
