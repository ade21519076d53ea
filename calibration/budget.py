"""``--max-drop``: which layers must stay in higher precision so that every task keeps its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_deploy.runtime.console import Progress
from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.onnx_graph import OnnxGraph, read_graph
from mtl_deploy.runtime.signature import Signature

from .accuracy import AccuracyMatrix
from .data import CalibrationData
from .evaluate import Source, evaluate, stored
from .graphs import STYLES, Int8Graphs
from .max_drop import parse_budgets
from .metrics import is_share, main_metric
from .options import Int8Options
from .placement import place
from .search import search


def find_skip(
    graphs: Int8Graphs,
    method: str,
    data: Sequence[CalibrationData],
    signature: Signature,
    options: Int8Options,
    progress: Progress,
) -> tuple[frozenset[str], dict[str, Any]]:
    """Find the fewest layers that bring every task within its budget, in both styles and on all images.

    Args:
        graphs: with their ranges.
        method: whose ranges.
        data: sets of images; the budget holds on each, also on those that are held apart.
        signature: the tasks.
        options: the budgets.
        progress: told where the work is.

    Returns:
        the nodes, and a record of the search.

    Raises:
        WorkError: a budget cannot be met; names the task.
        OptionError: the budgets cannot be read.
    """
    assert options.budgets is not None  # the caller asked for a search
    graph = read_graph(graphs.content)
    nodes = [name for name in place(graphs.model, "tensorrt").nodes if name in set(place(graphs.model, "cpu").nodes)]
    how: dict[str, Any] = {"batch": graphs.batch, "threads": options.threads, "seed": options.seed}
    first = [evaluate({"fp32": graphs.content}, each, signature, **how) for each in data]
    dense = any(task.dense for task in signature.tasks)  # whose outputs are too large to keep
    expected: list[Source] = [graphs.content if dense else stored(each.outputs["fp32"]) for each in first]
    main = {task.name: main_metric(task) for task in signature.tasks}
    errors = {
        cell.task: cell.metrics[main[cell.task]]
        for cell in first[-1].matrix.cells
        if cell.metrics and not is_share(main[cell.task])
    }
    budgets = parse_budgets(options.budgets, signature.tasks, errors)

    def drops_without(skip: frozenset[str]) -> Mapping[str, float]:
        drops: dict[str, float] = {}
        for style in STYLES:
            built = graphs.build(style, method, skip)
            for each, reference in zip(data, expected, strict=True):
                matrix = evaluate({"fp32": reference, "int8": built.runnable}, each, signature, **how).matrix
                for name, drop in _drops(matrix, signature).items():
                    drops[name] = max(drop, drops.get(name, -np.inf))
        return drops

    result = search(
        nodes,
        drops_without,
        budgets,
        heads=_heads(graph, nodes, signature),
        cost=_cost(graph, nodes),
        progress=lambda text: progress.update(f"Searching: {text}"),
    )
    if not result.met:
        missed = ", ".join(
            f"{name!r} drops by {result.drops[name]:.3g} (budget {budgets[name]:.3g})" for name in result.missed
        )
        raise WorkError(
            f"task {missed} even with every layer in higher precision; allow more with --max-drop, or use fp16"
        )
    return frozenset(result.skip), result.to_dict()


def _drops(matrix: AccuracyMatrix, signature: Signature) -> dict[str, float]:
    """Return by task what INT8 loses: of the main metric with labels, else of agreement or in mean error with FP32."""
    found = {}
    for task in signature.tasks:
        cell = matrix.cell(task.name, "int8")
        if cell.drop is not None:
            found[task.name] = cell.drop
        elif cell.agreement is not None:
            found[task.name] = 1 - cell.agreement
        else:
            found[task.name] = cell.mean_error
    return found


def _heads(graph: OnnxGraph, nodes: Sequence[str], signature: Signature) -> dict[str, str | None]:
    """Return by node the one task that it serves; None for those of the backbone."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    serves: dict[str, set[str]] = {name: set() for name in nodes}
    for task in signature.tasks:
        waiting, seen = [task.name], set()
        while waiting:
            node = producers.get(waiting.pop())
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            waiting.extend(node.inputs)
            if node.name in serves:
                serves[node.name].add(task.name)
    return {name: next(iter(tasks)) if len(tasks) == 1 else None for name, tasks in serves.items()}


def _cost(graph: OnnxGraph, nodes: Sequence[str]) -> dict[str, float]:
    """Return by node its multiply-adds for one image: the kernel's size times the positions that it is applied at."""
    sizes = {name: float(np.prod(tensor.shape)) for name, tensor in graph.initializers.items()}
    shapes = {value.name: value.shape or () for value in graph.values}
    found = {}
    for node in graph.nodes:
        if node.name in set(nodes):
            weights = max((sizes.get(name, 0.0) for name in node.inputs), default=0.0)
            positions = [size for size in shapes.get(node.outputs[0], ())[2:] if isinstance(size, int)]
            found[node.name] = weights * float(np.prod(positions)) if node.op_type == "Conv" else weights
    return found
