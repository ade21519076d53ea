"""Networks whose answer to an image is not settled by the image: noticed before any work, with the module or line that does it."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtl_deploy.runtime.errors import TraceError

_APART = 1e-3  # of the spread over the images: float32 stays a thousandfold below
_ROUNDING = 1e-5  # of the largest value, for outputs that hardly vary
_NORMS = nn.modules.batchnorm._BatchNorm

Answers = Sequence[torch.Tensor]


def require_repeatable(first: Answers, answer: Callable[[], Answers]) -> None:
    """Check that a network gives the same answer to the same images once more.

    Args:
        first: what it gave.
        answer: runs it again.

    Raises:
        TraceError: it does not; the message names the operator and the line of the user's code.
    """
    if not _differ(first, answer(), first):
        return
    with _Random() as random:
        answer()
    where = f": {random.found[0]}" if random.found else ""
    raise TraceError(
        f"the network gives another answer to the same images at each call{where}. Dropout or noise is on in eval mode: "
        "functional.dropout needs training=self.training, and noise belongs under if self.training"
    )


def require_alone(network: nn.Module, images: torch.Tensor, few: int, found: Answers, more: Answers) -> None:
    """Check that a network's answer to an image does not depend on the other images of its batch.

    Where it seems so in float32, the network is asked in float64 too: an ill-conditioned one rounds otherwise in another batch.

    Args:
        network: returns the tensors that are compared.
        images: ``(N, 3, H, W) float32``.
        few: how many of them ``found`` is for.
        found: what it gave for the first of them alone.
        more: what it gave for all of them.

    Raises:
        TraceError: it does; the message names the modules, if they are known.
    """
    if not _differ([value[:few] for value in more], found, more) or not _differ_exactly(network, images, few):
        return
    culprits = [
        name.removeprefix("network.")
        for name, module in network.named_modules()
        if isinstance(module, _NORMS) and module.running_mean is None
    ]
    where = "an operator over the batch, such as a mean over dimension 0"
    if culprits:
        where = f"BatchNorm without running statistics ({', '.join(culprits[:3])})"
    raise TraceError(
        f"the network's answer to an image depends on the other images of its batch: {where}. A deployed network cannot do "
        "that: train with track_running_stats=True, or normalise each image by itself (GroupNorm)"
    )


def _differ_exactly(network: nn.Module, images: torch.Tensor, few: int) -> bool:
    try:
        double = copy.deepcopy(network).double()
        with torch.inference_mode():
            found, more = double(images[:few].double()), double(images.double())
    except Exception:  # noqa: BLE001 - the network's own code runs here; without float64, float32 decides
        return True
    return _differ([value[:few] for value in more], found, more)


def _differ(ones: Answers, others: Answers, spreads: Answers) -> bool:
    for one, other, spread in zip(ones, others, spreads, strict=True):
        allowed = max(_APART * float(spread.std(correction=0)), _ROUNDING * float(spread.abs().max()), 1e-12)
        if float((one - other).abs().max()) > allowed:
            return True
    return False


class _Random(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the operators that draw random numbers, with the line of the code that called each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            frames = [
                frame
                for frame in traceback.extract_stack()
                if frame.name == "forward" and "/torch/" not in frame.filename
            ]
            own = [frame for frame in frames if "mtl_deploy" not in frame.filename] or frames
            place = f" in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""
            self.found.append(f"{func.overloadpacket.__name__.rstrip('_')}{place}")
        return func(*args, **(kwargs or {}))
