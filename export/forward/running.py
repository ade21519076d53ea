"""Running a network's own ``forward``, with errors that say what to do."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtl_deploy.export.graph.causes import named_line
from mtl_deploy.runtime.errors import OptionError, TraceError

from .channels import channel_advice
from .once import once

_TRAINED = "set the size that it was trained for with --image-size HxW"
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")
_UNKNOWN = re.compile(r"got an unexpected keyword argument '([^']*)'")
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


_PIECE = 2  # images at a time, where a network repeats itself: what it computes is kept meanwhile


def run(
    network: torch.nn.Module,
    tensor: torch.Tensor,
    constants: Mapping[str, Any] | None = None,
    *,
    free: bool = False,
    repeats: bool = False,
    batch: int | None = None,
) -> Any:
    """Call a network on a batch of images.

    Args:
        network: takes ``(N, C, H, W)``.
        tensor: the batch.
        constants: other arguments of ``forward``, by name.
        free: whether image sizes are free, for the message.
        repeats: whether it is known to repeat itself, and to return a tuple of tensors: then it is run with
            :func:`~mtl_deploy.export.forward.once.once`.
        batch: the only batch that it takes; None if it takes any.

    Raises:
        OptionError: ``forward`` takes other arguments than these.
        TraceError: it fails.
    """
    if repeats:
        pieces = [once(network, piece) for piece in torch.split(tensor, batch or _PIECE)]
        whole = [piece.result for piece in pieces if piece is not None]
        if len(whole) == len(pieces):
            return tuple(torch.cat(values) for values in zip(*whole, strict=True))
    try:
        with torch.inference_mode():
            return network(tensor, **(constants or {}))
    except Exception as error:  # the network's own code runs here and can raise anything
        if isinstance(error, TypeError) and not _in_users_code(error):
            _refuse_arguments(error)
        size = "x".join(str(pixels) for pixels in tensor.shape[2:])
        raise TraceError(
            f"the network fails on a batch of {len(tensor)} images of {size}: {named_line(error)}; "
            + (
                channel_advice(network, tensor, error, constants)
                or ("its forward fixes the size, so leave --dynamic-size out" if free else _TRAINED)
            )
        ) from error


def _in_users_code(error: Exception) -> bool:
    """Return whether an error comes from inside ``forward``, not from the call of it."""
    return any(not frame.filename.startswith(_NOT_THE_USERS) for frame in traceback.extract_tb(error.__traceback__))


def _refuse_arguments(error: TypeError) -> None:
    if (missing := _MISSING.search(str(error))) is not None:
        raise OptionError(
            f"the network's forward takes more than images ({missing[1]}): give what is fixed with --constant NAME=VALUE, or let "
            "the factory return a network whose forward is a functools.partial. Several images at a time are not supported: let "
            "the factory return a network that takes them as the channels of one input"
        ) from error
    if (unknown := _UNKNOWN.search(str(error))) is not None:
        raise OptionError(
            f"the network's forward has no argument {unknown[1]!r}; leave --constant {unknown[1]}=... out, or correct its name"
        ) from error
