"""Weights that verification cannot see, because their effect does not reach an output.

Examples are a branch before a scale of zero or of a millionth (as some residual blocks are initialised), or a closed gate: a graph
with wrong weights there would pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.network.inputs import Images, network_input
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.tolerances import GRAPHS
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.images.seen import seen_pixels

CHANGE = 0.05  # the share that weights are changed by, each up or down
_IMAGES = 1
_NAMED = 5


@dataclass(frozen=True)
class Question:
    """Which kernels of a network reach no output; its answer takes a while, and may be found elsewhere.

    Attributes:
        signature: of the graphs, with the activation of each output.
        images: ``(1, H, W, C) uint8``.
        scales: by task: the spread that its errors are relative to.
        tolerance: as a share of the scale.
    """

    signature: Signature
    images: Images
    scales: Mapping[str, float]
    tolerance: float

    @classmethod
    def of(cls, signature: Signature, images: Images, rows: Sequence[Row], options: Options) -> Question:
        """Return the question about FP32 graphs with these rows, for some of the images ``(N, H, W, C) uint8``."""
        scales = {name: row.spread or 1.0 for name, row in _shared(rows).items()}
        return cls(signature, np.asarray(images[:_IMAGES]), scales, options.tolerances.get("fp32", GRAPHS["fp32"]))

    def answer(self, network: Network) -> list[str]:
        """Return what :func:`unreached` finds; nothing where the network cannot be differentiated."""
        try:
            return self.find(network)
        except Exception:  # noqa: BLE001 - the network's own code runs here, and may not be made to be differentiated
            return []

    def find(self, network: Network) -> list[str]:
        """Return what :func:`unreached` finds.

        Raises:
            Exception: the network cannot be differentiated, or not here.
        """
        return unreached(network, self.signature, self.images, self.scales, self.tolerance)


def _shared(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.task: row for row in rows if row.artifact == "fp32.onnx"}


def unseen_notes(signature: Signature, rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Return what verification could not see, for people: kernels that reach no output, and outputs that do not vary.

    Args:
        signature: of the graphs, with the activation of each output.
        rows: of the FP32 graphs.
        names: what :class:`Question` found.
    """
    applied = {task.name: task.applied for task in signature.tasks}
    notes = [_constant(row.task, applied[row.task]) for row in _shared(rows).values() if row.constant]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        notes.append(
            f"verification cannot see {len(names)} of the network's kernels, since their results hardly reach an output "
            f"with these weights ({', '.join(names[:_NAMED])}{more}): a wrong value there would go unnoticed"
        )
    return notes


def _constant(name: str, applied: str) -> str:
    if applied == "sigmoid":
        return (
            f"task {name!r} does not distinguish the images as far as a sigmoid in float32 shows: its probabilities vary too "
            "little, or are almost 0 or 1 on every image, so that errors in its logits would go unnoticed; is its head "
            "trained, and are the images (--images) like those that it is for?"
        )
    return (
        f"task {name!r} is constant: over the images its output varies by no more than float32 rounding, so it was "
        "judged only by its size; is its head trained?"
    )


def unreached(
    network: Network, signature: Signature, images: Images, scales: Mapping[str, float], tolerance: float
) -> list[str]:
    """Return the kernels, by their names in the network, for which a change of up to :data:`CHANGE` would not be noticed.

    Method: to first order, such a change moves an output by at most that share of the sum of ``|gradient * weight|``. The gradients
    are those of the sum of all outputs with random signs, so that one backward pass is enough. Float32 suffices for them, except
    for probabilities: where they are almost 0 or 1, float32 has no slope left.

    Args:
        network: if it gives probabilities and does not run in float64, nothing is found.
        signature: of the graphs.
        images: ``(N, H, W, C) uint8``; the first one is used.
        scales: by task: the spread that its errors are relative to, see :class:`~mtl_deploy.runtime.bundle.verification.Row`.
        tolerance: as a share of the scale: a smaller change is not noticed.

    Raises:
        Exception: the network cannot be differentiated.
    """
    import torch

    double = any(task.gives_probabilities for task in signature.tasks)
    chosen = network.doubled if double else network.selected
    if chosen is None:
        return []
    kernels = {name.removeprefix("network."): kernel for name, kernel in chosen.named_parameters() if kernel.ndim > 1}
    if not kernels:  # a graph, which cannot be differentiated
        return []
    seen = seen_pixels(images[:_IMAGES], network.preprocessing)
    tensor = network_input(seen, network.preprocessing, double=double)
    signs = torch.Generator().manual_seed(0)
    effects = dict.fromkeys(kernels, 0.0)
    try:
        for kernel in kernels.values():
            kernel.requires_grad_(True)
        found = network.by_task(chosen(tensor))
        total = torch.zeros((), dtype=torch.float64)
        for task in signature.tasks:
            raw = found[task.name]
            values = kind_of(task).in_unit(task, raw, decoded=signature.outputs == "decoded")
            random = 2.0 * torch.randint(0, 2, values.shape, generator=signs, dtype=torch.float64) - 1
            total = total + (values * random).sum() / scales[task.name]
        gradients = torch.autograd.grad(total, list(kernels.values()), allow_unused=True)
        for name, gradient in zip(kernels, gradients, strict=True):
            if gradient is not None:
                effects[name] = float((gradient * kernels[name].detach()).abs().sum())
    finally:
        for kernel in kernels.values():
            kernel.requires_grad_(False)
    return [name for name, effect in effects.items() if not np.isnan(effect) and CHANGE * effect < tolerance]
