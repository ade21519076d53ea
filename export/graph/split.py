"""Which part of a graph is the backbone, which part belongs to one head, and the graph that serves one task alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cost import Cost, border_multiply_adds, cost, values_read
from .passes import Merged
from .sizes import at_size

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Sharing:
    """What the tasks of a graph share, by cost.

    Attributes:
        shared: cost of the whole graph.
        backbone: cost of what more than one task needs.
        heads: cost of what only one task needs, by task.
        separate: cost of each task's own model, backbone and head, by task.
        border: multiply-adds of what resizes a camera's frames, which each model does once; no part of the costs.
    """

    shared: Cost
    backbone: Cost
    heads: dict[str, Cost]
    separate: dict[str, Cost]
    border: int = 0

    @property
    def shares_backbone(self) -> bool:
        """Whether the tasks have any convolution or matrix product in common."""
        return self.backbone.multiply_adds > 0

    @property
    def ideal_ratio(self) -> float:
        """Multiply-adds of the separate models divided by those of the shared one: the most that sharing can gain."""
        total = sum(each.multiply_adds for each in self.separate.values())
        return total / self.shared.multiply_adds if self.shared.multiply_adds else 1.0

    @property
    def description(self) -> str:
        """For people: what is shared, and what sharing can gain."""
        if len(self.heads) == 1:
            return "one task, so there is nothing to share"
        if not self.shares_backbone:
            return "the heads share nothing"
        share = 100 * self.backbone.multiply_adds / self.shared.multiply_adds
        return (
            f"{share:.1f} % of the multiply-adds are shared; separate models do {self.ideal_ratio:.2f} times the work"
        )

    def to_dict(self, merged: Merged) -> dict[str, Any]:
        """Return the manifest's record, with what the network itself did before repeated work was merged."""

        def both(field: str) -> dict[str, Any]:
            return {
                "network": getattr(merged.before, field),
                "shared": getattr(self.shared, field),
                "backbone": getattr(self.backbone, field),
                "heads": {task: getattr(each, field) for task, each in self.heads.items()},
                "separate": {task: getattr(each, field) for task, each in self.separate.items()},
            }

        return {
            "backbone_copies": merged.copies,
            "repeated_layers": merged.repeated_layers,
            "shares_backbone": self.shares_backbone,
            "multiply_adds": both("multiply_adds") | ({"border": self.border} if self.border else {}),
            "parameters": both("parameters"),
            "ideal_ratio": round(self.ideal_ratio, 4),
        }


def sharing(model: ir.Model, size: tuple[int, int] | None = None) -> Sharing:
    """Measure what the outputs of a graph share. Each output counts as a task of the same name.

    Args:
        model: is not changed.
        size: height and width at which the work is counted; None: the graph's own, which are fixed.
    """
    counted = at_size(model, size)
    needed = {str(output.name): ancestors([output]) for output in counted.graph.outputs}
    times: dict[ir.Node, int] = {}
    for nodes in needed.values():
        for node in nodes:
            times[node] = times.get(node, 0) + 1
    return Sharing(
        shared=cost(times),
        backbone=cost(node for node, count in times.items() if count > 1),
        heads={task: cost(node for node in nodes if times[node] == 1) for task, nodes in needed.items()},
        separate={task: cost(nodes) for task, nodes in needed.items()},
        border=border_multiply_adds(times),
    )


def ancestors(values: Iterable[ir.Value]) -> dict[ir.Node, None]:
    """Return the nodes that values are computed from, each once, in no particular order."""
    found: dict[ir.Node, None] = {}
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found[node] = None
        waiting.extend(
            each for value in values_read(node) if (each := value.producer()) is None or each.graph is node.graph
        )
    return found


def extract(model: ir.Model, outputs: Iterable[str]) -> ir.Model:
    """Return a graph that computes only the named outputs. Nodes are new, weights are shared in memory."""
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    part = model.clone()
    wanted = list(outputs)
    part.graph.outputs[:] = [value for value in part.graph.outputs if value.name in wanted]
    common.RemoveUnusedNodesPass()(part)
    assert isinstance(part, ir.Model)  # what clone returns
    return part
