"""``--max-drop``: which layers must stay in higher precision so that every task stays within its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from math import prod
from typing import Any

from mtl_deploy.calibration.accuracy.evaluate import Evaluation, Source, evaluate, stored
from mtl_deploy.calibration.accuracy.metrics import is_share, main_metric
from mtl_deploy.calibration.accuracy.paired_losses import Losses, Sample
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.int8.graphs import STYLES, Int8Graphs
from mtl_deploy.calibration.int8.qdq_placement import quantizable
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph
from mtl_deploy.runtime.onnx_format.weighted import multiply_adds

from .budgets import error_shares, parse_budgets
from .confirmation import Look, confirmed_search
from .wording import summary


class MissedBudgetError(WorkError):
    """A budget that is missed whatever stays in higher precision, as the images show.

    Attributes:
        record: the record of the search, for programs; its ``outcome`` is ``missed``.
    """

    def __init__(self, message: str, record: dict[str, Any]) -> None:
        super().__init__(message)
        self.record = record


def find_skip(
    graphs: Int8Graphs,
    methods: Mapping[str, str],
    searched: Sequence[CalibrationData],
    confirming: CalibrationData,
    signature: Signature,
    options: Int8Options,
    progress: Progress,
) -> tuple[frozenset[str], dict[str, Any]]:
    """Find few layers that must be kept in higher precision, and show that every task is then within its budget in both styles.

    Args:
        graphs: have their ranges already.
        methods: by style, the method whose ranges are used.
        searched: sets of images for choosing layers.
        confirming: other images, which show whether the budgets are met.
        signature: names the tasks.
        options: hold the budgets.
        progress: shows the steps.

    Returns:
        the nodes, and a record of the search: its ``outcome`` is ``met`` or ``undecided``, see
        :mod:`~mtl_deploy.calibration.search.confirmation`; ``summary`` is the outcome in words.

    Raises:
        MissedBudgetError: the images show that a budget cannot be met; the message names the task.
        OptionError: the budgets cannot be read.
    """
    graph = read_graph(graphs.content)
    nodes = quantizable(graphs.model)  # also layers of only one style: its graph must keep the budgets too
    sets = [*searched, confirming]
    drops = _Drops(graphs, methods, sets, signature, options)
    last = len(sets) - 1
    cost = _cost(graph, nodes)
    result = confirmed_search(
        nodes,
        drops.on(range(last)),
        drops.on([last]),
        drops.budgets,
        images=drops.images(last),
        heads=_heads(graph, nodes, signature),
        cost=cost,
        progress=lambda text: progress.update(f"Searching: {text}"),
    )
    share = sum(cost.get(node, 0.0) for node in result.skip) / (sum(cost.values()) or 1.0)
    images = sum(len(each) for each in sets)
    record = result.to_dict(share, images) | {"summary": summary(result, signature, images)}
    if result.outcome == "missed":
        raise MissedBudgetError(record["summary"], record)
    return frozenset(result.skip), record


class _Drops:
    """What each choice of layers costs each task, on several sets of images.

    Args:
        graphs: have their ranges already.
        methods: by style, the method whose ranges are used.
        sets: the sets of images.
        signature: names the tasks.
        options: hold the budgets.

    Attributes:
        budgets: by task, the drop allowed.
    """

    def __init__(
        self,
        graphs: Int8Graphs,
        methods: Mapping[str, str],
        sets: Sequence[CalibrationData],
        signature: Signature,
        options: Int8Options,
    ) -> None:
        assert options.budgets is not None  # the caller asked for a search
        self._sets, self._signature, self._seed = sets, signature, options.seed
        self._how: dict[str, Any] = {"batch": graphs.batch, "threads": options.threads, "seed": options.seed}
        self._built = cache(lambda style, skip: graphs.build(style, methods[style], skip).runnable)
        first = [evaluate({"fp32": graphs.content}, each, signature, **self._how) for each in sets]
        dense = any(kind_of(task).by_rows for task in signature.tasks)  # whose outputs are too large to keep
        self._expected: list[Source] = [graphs.content if dense else stored(each.outputs["fp32"]) for each in first]
        self._losses = [{task.name: each.losses["fp32", task.name] for task in signature.tasks} for each in first]
        own = {task.name: _joined([each[task.name] for each in self._losses]) for task in signature.tasks}
        errors = {task.name: own[task.name].figure for task in signature.tasks if not is_share(main_metric(task))}
        self._errors = {name: error for name, error in errors.items() if own[name].labelled}
        self.budgets = parse_budgets(options.budgets, signature.tasks, self._errors)
        self._shares = error_shares(options.budgets, signature.tasks)

    def images(self, position: int) -> dict[str, int]:
        """Return by task with a budget the number of images of one set that it is measured on."""
        return {name: len(self._losses[position][name].rows) for name in self.budgets}

    def on(self, positions: Sequence[int]) -> Look:
        """Return a function from the layers kept to each task's drop, on some of the sets taken together."""

        def look(skip: frozenset[str]) -> dict[str, list[Sample]]:
            found: dict[str, list[Sample]] = {name: [] for name in self.budgets}
            for style in STYLES:
                variants = [self._evaluated(style, skip, position) for position in positions]
                for name in self.budgets:
                    int8, fp32 = (_joined([each.losses[v, name] for each in variants]) for v in ("int8", "fp32"))
                    allowed = self._shares.get(name, 0.0)
                    taken = allowed * self._errors.get(name, 0.0)
                    found[name].append(int8.against(fp32, self._seed, allowed=allowed, taken=taken))
            self._built.cache_clear()
            return found

        return look

    def _evaluated(self, style: str, skip: frozenset[str], position: int) -> Evaluation:
        sources = {"fp32": self._expected[position], "int8": self._built(style, skip)}
        return evaluate(sources, self._sets[position], self._signature, **self._how)


def _joined(parts: Sequence[Losses]) -> Losses:
    return reduce(Losses.joined, parts)


def _heads(graph: OnnxGraph, nodes: Sequence[str], signature: Signature) -> dict[str, str | None]:
    """Return by node the only task that it serves; None for nodes that serve several."""
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
    """Return by node its multiply-adds for one image; a free size counts as 1."""
    shapes: dict[str, list[int]] = {name: list(tensor.shape) for name, tensor in graph.initializers.items()}
    for value in (*graph.values, *graph.inputs, *graph.outputs):
        if value.shape is not None:
            shapes[value.name] = [size if isinstance(size, int) else 1 for size in value.shape]
    first = graph.inputs[0].shape or ()
    images = first[0] if first and isinstance(first[0], int) else 1
    found = {}
    for node in graph.nodes:
        if node.name in set(nodes):
            inputs, outputs = ([shapes.get(name) for name in names] for names in (node.inputs, node.outputs))
            count = multiply_adds(node.op_type, inputs, outputs, node.attributes, node.domain)
            if count is None:  # the graph does not give the shapes between its nodes
                weights = (graph.initializers[name].shape for name in node.inputs if name in graph.initializers)
                count = images * max(map(prod, weights), default=0)
            found[node.name] = count / images
    return found
