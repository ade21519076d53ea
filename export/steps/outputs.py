"""Binding: which task each output of the graph is, its activation, and the nodes in front of the network and behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mtl_deploy.export.activation.applied import describe, settle_activations
from mtl_deploy.export.graph import passes, split
from mtl_deploy.export.graph.bind import bind_by_value
from mtl_deploy.export.graph.borders import add_decoding, add_preprocessing, rename_outputs
from mtl_deploy.export.graph.parts import merge_parts, part_columns, part_names
from mtl_deploy.export.graph.trace import TracedGraph
from mtl_deploy.export.graph.variants import GraphVariant, serialize, variants
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.expected import EXACT
from mtl_deploy.export.verification.optimizer import Outputs, culprit
from mtl_deploy.export.verification.stage import Samples, running
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import TraceError
from mtl_deploy.runtime.images.seen import seen_pixels

from .truth import Truth


@dataclass(frozen=True)
class Bound:
    """The FP32 graphs, complete, and what they must give.

    Attributes:
        signature: of the graphs, with the activation of each task.
        graphs: in FP32, the shared one first.
        batch: the only batch that they take; None if they take any.
        samples: images of each size with what PyTorch gave for them.
        shares: what the tasks share.
        notes: what a reader of the bundle should know.
    """

    signature: Signature
    graphs: list[GraphVariant]
    batch: int | None
    samples: Samples
    shares: split.Sharing
    notes: tuple[str, ...]


def bind(traced: TracedGraph, truth: Truth, options: Options, progress: Progress) -> Bound:
    """Name the graph's outputs by value, put preprocessing and decoding around the network, and cut the single-task graphs.

    Args:
        traced: cleaned; its graph is changed in place.
        truth: what PyTorch gave.
        options: what was asked for.
        progress: shows what is being done.

    Raises:
        TraceError: an output of the graph is not what the network computes.
        TaskError: a task's activation is not what was declared.
    """
    preprocessing = truth.signature.preprocessing
    with progress.step("Binding names to outputs by value") as say:
        _name_outputs(traced.model, truth, options)
        raw = truth.samples[0][1].raw
        tasks, notes = settle_activations(truth.signature.tasks, traced.model.graph.outputs, raw)
        signature = replace(truth.signature, tasks=tasks)
        add_preprocessing(traced.model, preprocessing)
        add_decoding(traced.model, signature)
        passes.infer_shapes(traced.model)
        size = (preprocessing.height, preprocessing.width) if preprocessing.source is None else None
        shares = split.sharing(traced.model, size)
        say("; ".join(text for text in (shares.description, describe(tasks, signature.outputs)) if text))
    graphs = variants(traced.model, "fp32", signature, shares, traced.batch, separate=options.separate)
    samples = [(images, replace(expected, signature=signature)) for images, expected in truth.samples]
    return Bound(signature, list(graphs), traced.batch, samples, shares, (*notes, *shares.shared.notes))


def _name_outputs(model: ir.Model, truth: Truth, options: Options) -> None:
    """Run the graph on a few images, and give each output the name of the task whose values it has, in place."""
    images, expected = truth.samples[0]
    fixed = model.graph.inputs[0].shape
    batch = fixed[0] if fixed is not None and isinstance(fixed[0], int) else EXACT
    probe = network_input(seen_pixels(images[:batch], truth.signature.preprocessing), truth.signature.preprocessing)
    content = serialize(model)
    with running(content, options) as backend:
        given = [spec.name for spec in backend.outputs]
        inputs = {backend.inputs[0].name: probe.numpy()}
        found = backend.run(inputs, given)
    outputs = [np.asarray(found[name], np.float32) for name in given]
    tasks = truth.signature.tasks
    names = [name for task in tasks for name in part_names(task)]
    references = {name: (expected.parts if name in expected.parts else expected.raw)[name][:batch] for name in names}
    exact = {name: array[:batch] for name, array in expected.exact.items()} if expected.known[:batch].all() else None
    try:
        positions = bind_by_value(outputs, references, exact or None, tasks)
    except TraceError as error:
        part = culprit(content, inputs, lambda values: _binds(values, references, tasks))
        if part is None:
            raise
        raise TraceError(
            f"ONNX Runtime's optimizer{f' ({part})' if part else ''} changes what this graph computes: without it, the outputs "
            "equal the network's. Upgrade or downgrade onnxruntime, or write that part of forward otherwise"
        ) from error
    rename_outputs(model, positions, names, part_columns(tasks))
    merge_parts(model, truth.signature)


def _binds(outputs: Outputs, references: Mapping[str, npt.NDArray[Any]], tasks: Sequence[Task]) -> bool:
    try:
        bind_by_value(outputs, references, None, tasks)
    except TraceError:
        return False
    return True
