"""Weights that verification cannot see, since with the others as they are, nothing of them reaches an output.

A branch that a scale of zero or of a millionth follows (a residual block as some are initialised), a gate that is shut: any
graph of it would pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .expected import Images, network_input
from .network import Network
from .options import TOLERANCES, Options
from .outputs import flatten_outputs
from .rows import Row

CHANGE = 0.05  # the share that weights are changed by, each up or down
_IMAGES = 2


_NAMED = 5


def unseen_notes(network: Network, images: Images, rows: Sequence[Row], options: Options) -> list[str]:
    """Return what verification could not tell, for people: kernels that reach no output, and outputs that do not vary.

    Args:
        network: the network.
        images: ``(N, H, W, 3) uint8, RGB``.
        rows: of the FP32 graphs.
        options: the tolerance.
    """
    shared = {row.task: row for row in rows if row.artifact == "fp32.onnx"}
    notes = [
        f"task {row.task!r} is constant: over the images its output varies by no more than float32 rounds, so that it was "
        "judged by its size alone; is its head trained?"
        for row in shared.values()
        if row.constant
    ]
    scales = {name: row.spread or 1.0 for name, row in shared.items()}
    tolerance = options.tolerances.get("fp32", TOLERANCES["fp32"])
    if names := unreached(network, images, scales, tolerance):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        notes.append(
            f"verification cannot see {len(names)} of the network's kernels, since what they compute hardly reaches an output "
            f"with these weights ({', '.join(names[:_NAMED])}{more}): a wrong value there would go unnoticed"
        )
    return notes


def unreached(network: Network, images: Images, scales: Mapping[str, float], tolerance: float) -> list[str]:
    """Return the kernels of which no change by up to :data:`CHANGE` would be seen, by their names in the network.

    Method: to first order, such a change moves an output by at most that share of the sum of ``|gradient * weight|``. Gradients are
    those of sums of all outputs with random signs, so that one pass backwards serves them all.

    Args:
        network: where it does not run in float64 or cannot be differentiated, nothing is found.
        images: ``(N, H, W, 3) uint8, RGB``; the first two are used.
        scales: by task: what its errors are relative to.
        tolerance: of the scale: a smaller change is not seen.
    """
    import torch

    loaded = network.doubled
    if loaded is None:
        return []
    kernels = {name: kernel for name, kernel in loaded.network.named_parameters() if kernel.ndim > 1}
    tensor = network_input(images[:_IMAGES], network.preprocessing, double=True)
    signs = torch.Generator().manual_seed(0)
    effects = dict.fromkeys(kernels, 0.0)
    try:
        for kernel in kernels.values():
            kernel.requires_grad_(True)
        found = flatten_outputs(loaded.network(tensor), batch=len(tensor))
        total = torch.zeros((), dtype=torch.float64)
        for task in network.tasks:
            values = found[task.output if task.output is not None else task.name]
            random = 2.0 * torch.randint(0, 2, values.shape, generator=signs, dtype=torch.float64) - 1
            total = total + (values * random).sum() / scales[task.name]
        gradients = torch.autograd.grad(total, list(kernels.values()), allow_unused=True)
        for name, gradient in zip(kernels, gradients, strict=True):
            if gradient is not None:
                effects[name] = float((gradient * kernels[name].detach()).abs().sum())
    except Exception:  # noqa: BLE001 - the network's own code runs here, and may not be made to be differentiated
        return []
    finally:
        for kernel in kernels.values():
            kernel.requires_grad_(False)
    return [name for name, effect in effects.items() if not np.isnan(effect) and CHANGE * effect < tolerance]
