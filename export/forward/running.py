"""Running a network's own ``forward``, with errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from mtl_deploy.runtime.errors import TraceError

_TRAINED = "set the size that it was trained for with --image-size HxW"
_ARGUMENTS = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")
_UNKNOWN = re.compile(r"got an unexpected keyword argument '([^']*)'")


def run(
    network: torch.nn.Module, tensor: torch.Tensor, constants: Mapping[str, Any] | None = None, *, free: bool = False
) -> Any:
    """Call a network on a batch of images.

    Args:
        network: takes ``(N, 3, H, W)``.
        tensor: the batch.
        constants: other arguments of ``forward``, by name.
        free: whether image sizes are free, for the message.

    Raises:
        TraceError: it fails.
    """
    try:
        with torch.inference_mode():
            return network(tensor, **(constants or {}))
    except Exception as error:  # the network's own code runs here and can raise anything
        size = "x".join(str(pixels) for pixels in tensor.shape[2:])
        lines = str(error).strip().splitlines() or ["no message"]
        raise TraceError(
            f"the network fails on a batch of {len(tensor)} images of {size}: {type(error).__name__}: {lines[0]}; "
            f"{_advice(error, free)}"
        ) from error


def _advice(error: Exception, free: bool) -> str:
    if isinstance(error, TypeError) and (missing := _ARGUMENTS.search(str(error))):
        names = missing[1]
        return (
            f"its forward takes more than images: give what is fixed with --constant NAME=VALUE ({names}), or return from the "
            "factory a network whose forward is a functools.partial. Several images at a time are not supported: let the "
            "factory return a network that takes them as the channels of one input"
        )
    if isinstance(error, TypeError) and (unknown := _UNKNOWN.search(str(error))):
        return f"its forward has no argument {unknown[1]!r}; leave --constant {unknown[1]}=... out, or correct its name"
    return "its forward fixes the size, so leave --dynamic-size out" if free else _TRAINED
