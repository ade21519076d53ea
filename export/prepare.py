"""From a checkpoint to FP32 graphs and what they must give: the part of an export that every precision needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from mtl_deploy.export.activation.applied import describe, settle_activations
from mtl_deploy.export.graph import opset, passes, split
from mtl_deploy.export.graph.bind import bind_by_value
from mtl_deploy.export.graph.borders import add_decoding, add_preprocessing, rename_outputs
from mtl_deploy.export.graph.passes import Merged
from mtl_deploy.export.graph.split import Sharing
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.graph.variants import GraphVariant, serialize, variants
from mtl_deploy.export.network.inputs import Images, network_input
from mtl_deploy.export.network.network import Network, load_network
from mtl_deploy.export.verification.choices import has_margins
from mtl_deploy.export.verification.expected import EXACT, Expected, margins, run_network
from mtl_deploy.export.verification.images import (
    VerificationImages,
    images_of_another_size,
    reference_images,
    verification_images,
)
from mtl_deploy.export.verification.stage import running
from mtl_deploy.export.verification.task_errors import noise_floor
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.command import Progress

from . import int8
from .options.export import Options

_FLOAT32 = (
    "the network does not run in float64 (its forward casts to float32, or it is quantized), so its own float32 answers are the "
    "truth, and the usual tolerance holds"
)


@dataclass(frozen=True)
class Prepared:
    """What an export has made before it verifies anything.

    Attributes:
        network: the loaded network.
        signature: of the graphs.
        graphs: in FP32, the shared one first.
        batch: the only batch that they take; None where they take any.
        images: that they are verified on.
        samples: images of each size with what PyTorch gave for them.
        shares: what the tasks share.
        merged: what of the network's work was repeated.
        reference: the file for verifying engines on a device, and the manifest's record of it.
        quantize: adds INT8 graphs; None where they were not asked for.
        notes: what a reader of the bundle should know.
    """

    network: Network
    signature: Signature
    graphs: list[GraphVariant]
    batch: int | None
    images: VerificationImages
    samples: list[tuple[Images, Expected]]
    shares: Sharing
    merged: Merged
    reference: tuple[bytes, dict[str, Any]]
    quantize: int8.Quantizer | None
    notes: list[str]


def prepare(options: Options, progress: Progress) -> Prepared:
    """Load, trace, clean, run PyTorch, bind, split.

    Raises:
        MtlError: the input cannot be used, or a step failed.
    """
    with progress.step(f"Loading {options.checkpoint}") as say:
        network = load_network(options)
        say(network.description)
    preprocessing = network.preprocessing
    size, multiple = (preprocessing.height, preprocessing.width), preprocessing.multiple
    with progress.step("Tracing the network into a graph") as say:
        source = network.loaded.program or network.loaded.network
        traced = trace(source, *size, opset=options.opset, multiple=multiple)
        say(traced.description)
    model, batch = traced.model, traced.batch
    data = int8.read_data(network, options, progress)
    with progress.step("Merging repeated work, folding constants and BatchNorm") as say:
        merged = passes.merge_copies(model, size if multiple else None)
        passes.clean(model)
        written = opset.write_opset(model, options.opset)
        say(f"{merged.description}; opset {written}")
    with progress.step("Reading images for verification") as say:
        images = verification_images(options, preprocessing, batch)
        say(images.description)
    signature = Signature(network.tasks, preprocessing, options.outputs)
    with progress.step(f"Running PyTorch on {len(images.array)} images") as say:
        samples = [(images.array, run_network(network, signature, images.array, batch))]
        say(
            "float64 is the truth"
            if samples[0][1].exact
            else "float32 is the truth: the network does not run in float64"
        )
        if multiple:
            others = images_of_another_size(preprocessing, batch)
            samples.append((others, run_network(network, signature, others, batch)))
    with progress.step("Binding names to outputs by value") as say:
        signature, applied = _bind(model, signature, *samples[0], options)
        samples = [(pictures, replace(expected, signature=signature)) for pictures, expected in samples]
        shares = split.sharing(model, size)
        say("; ".join(text for text in (shares.description, describe(signature.tasks, signature.outputs)) if text))
    packed = _reference(network, signature, batch)
    return Prepared(
        network=network,
        signature=signature,
        graphs=list(variants(model, "fp32", signature, shares, batch, separate=options.separate)),
        batch=batch,
        images=images,
        samples=samples,
        shares=shares,
        merged=merged,
        reference=packed,
        quantize=None if data is None else int8.quantizer(network, signature, data, batch, options, progress),
        notes=[
            *network.notes,
            *(note for note in (traced.note,) if note),
            *([] if samples[0][1].exact else [_FLOAT32]),
            *applied,
        ],
    )


def _bind(
    model: ir.Model, signature: Signature, images: Images, expected: Expected, options: Options
) -> tuple[Signature, list[str]]:
    """Name the graph's outputs by value, and put preprocessing and decoding around the network, in place.

    Returns:
        the signature with the activation of each task, and a note for each that has one.
    """
    fixed = model.graph.inputs[0].shape
    batch = fixed[0] if fixed is not None and isinstance(fixed[0], int) else EXACT
    probe = network_input(images[:batch], signature.preprocessing)
    with running(serialize(model), options) as backend:
        names = [spec.name for spec in backend.outputs]
        found = backend.run({backend.inputs[0].name: probe.numpy()}, names)
    outputs = [np.asarray(found[name], np.float32) for name in names]
    references = {name: array[:batch] for name, array in expected.raw.items()}
    exact = {name: array[:batch] for name, array in expected.exact.items()} if expected.known[:batch].all() else None
    rename_outputs(model, bind_by_value(outputs, references, exact or None), list(references))
    tasks, notes = settle_activations(signature.tasks, model.graph.outputs, expected.raw)
    signature = replace(signature, tasks=tasks)
    add_preprocessing(model, signature.preprocessing)
    add_decoding(model, signature)
    passes.infer_shapes(model)
    return signature, notes


def _reference(network: Network, signature: Signature, batch: int | None) -> tuple[bytes, dict[str, Any]]:
    """Make the reference that engines are verified with on a device."""
    pictures = reference_images(signature, batch)
    expected = run_network(network, signature, pictures, batch)
    truth = {task.name: expected.outputs(task, exact=True)[task.name] for task in signature.tasks}
    outputs = {name: array.astype(signature.dtype(name)) for name, array in truth.items()}
    sure = [task for task in signature.tasks if has_margins(task, signature)]
    leads = {task.name: margins(task, expected.raw[task.name]) for task in sure}
    floors = {task.name: noise_floor(task, signature, expected) for task in signature.tasks}
    return reference.pack(pictures, outputs, margins=leads, floors=floors)
