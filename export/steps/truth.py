"""What the graphs must give: PyTorch's answers for the images of verification, and the reference for devices without PyTorch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.network.inputs import Images
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import SAMPLES, Options
from mtl_deploy.export.verification.expected import Expected, run_network
from mtl_deploy.export.verification.images import (
    VerificationImages,
    images_of_another_size,
    reference_images,
    verification_images,
)
from mtl_deploy.export.verification.stage import Samples
from mtl_deploy.export.verification.task_errors import noise_floor
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import MtlWarning

from .ahead import Ahead

_GRAPH_FLOAT32 = (
    "the given graph does not run in float64 (ONNX Runtime has no such convolutions, and ONNX's reference evaluator does not know "
    "an operator in it, reads one otherwise than ONNX Runtime does, or takes longer than a minute for an image), so its own "
    "float32 answers are the truth, and the usual tolerance holds"
)
_FLOAT32 = (
    "the network does not run in float64 (its forward casts to float32, or it is quantized), so its own float32 answers are the "
    "truth, and the usual tolerance holds"
)


@dataclass(frozen=True)
class Truth:
    """What PyTorch gave.

    Attributes:
        signature: of the graphs, before the activations of the outputs are known.
        images: that the graphs are verified on.
        samples: these and, where sizes are free, images of another size, each with what PyTorch gave for them.
        without_double: what a reader of the bundle should know if nothing ran in float64.
    """

    signature: Signature
    images: VerificationImages
    samples: Samples
    without_double: str = _FLOAT32

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the bundle should know."""
        return (
            *(() if self.samples[0][1].exact else (self.without_double,)),
            *((few(len(self.images.array)),) if len(self.images.array) < SAMPLES else ()),
        )


def few(images: int) -> str:
    """Return what to say about verification on fewer images than usual."""
    return f"verified on only {counted(images, 'image')}, which show less of what the network can give than {SAMPLES} or more"


def ask_pytorch(
    network: Network, batch: int | None, options: Options, progress: Progress, forward: Network | Ahead | None = None
) -> Truth:
    """Run PyTorch on the images of verification, in float32 and, where it can, in float64.

    Args:
        network: that is exported.
        batch: the only batch that its graph takes; None if it takes any.
        options: what was asked for.
        progress: shows what is being done.
        forward: the same network, which may know its answers already.

    Raises:
        MtlError: there are too few images, or the network fails on them.
    """
    preprocessing = network.preprocessing
    with progress.step("Reading images for verification") as say:
        known = forward.images(batch) if isinstance(forward, Ahead) else None
        images = known or verification_images(options, preprocessing, batch)
        say(images.description)
    if len(images.array) < SAMPLES and not options.quick:
        warnings.warn(few(len(images.array)), MtlWarning, stacklevel=2)
    signature = Signature(network.tasks, preprocessing, options.outputs)
    with progress.step(f"Running {network.runner} on {len(images.array)} images") as say:
        forward = forward or network
        samples = [(images.array, run_network(forward, signature, images.array, batch))]
        exact = bool(samples[0][1].exact)
        say("float64 is the truth" if exact else "float32 is the truth: it does not run in float64")
        if preprocessing.multiple:
            others = images_of_another_size(preprocessing, batch)
            samples.append((others, run_network(forward, signature, others, batch)))
    note = _FLOAT32 if network.loaded.given is None else _GRAPH_FLOAT32
    return Truth(signature, images, samples, note)


def pack_reference(
    network: Network, signature: Signature, batch: int | None, images: Images, known: Expected
) -> tuple[bytes, dict[str, Any]]:
    """Make the reference that engines are verified against on a device.

    Args:
        network: that is exported.
        signature: of the graphs.
        batch: the only batch that they take; None if they take any.
        images: that the graphs are verified on.
        known: what the network gave for them; it is not asked again for those that are in the reference too.

    Returns:
        The file, and the manifest's record of it.
    """
    pictures = reference_images(signature, batch)
    count = len(pictures)
    if np.array_equal(pictures, images[:count]) and known.known[:count].all():
        expected = known.first(count)
    else:
        expected = run_network(network, signature, pictures, batch)
    truth = {task.name: expected.outputs(task, exact=True)[task.name] for task in signature.tasks}
    outputs = {name: array.astype(signature.dtype(name)) for name, array in truth.items()}
    sure = [task for task in signature.tasks if signature.outputs == "decoded" and kind_of(task).by_margin(task)]
    leads = {task.name: kind_of(task).margins(task, expected.raw[task.name]) for task in sure}
    floors = {task.name: noise_floor(task, signature, expected) for task in signature.tasks}
    return reference.pack(pictures, outputs, margins=leads, floors=floors)
