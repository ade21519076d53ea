"""How many channels a network takes, for the message of one that fails on images of another number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mtl_deploy.runtime.bundle.preprocessing import numbers
from mtl_deploy.runtime.errors import OptionError

_USUAL = (1, 3, 4, 6, 2, 5)
_UNEQUAL = re.compile(
    r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension 1\b"
)
_SAID = (  # what PyTorch says, and whether the wanted number comes first
    (re.compile(r"to have (\d+) channels, but got (\d+) channels"), True),
    (re.compile(r"running_mean should contain (\d+) elements not (\d+)"), False),
    (_UNEQUAL, False),
    (_UNEQUAL, True),
)


def require_channels(shape: Sequence[int | None] | None, channels: int, called: str) -> None:
    """Check the number of channels of a file's input.

    Args:
        shape: ``(N, C, H, W)`` of a program or a graph; None: the network is neither.
        channels: of the images.
        called: the file, for people.

    Raises:
        OptionError: it is for another number.
    """
    wanted = None if shape is None else shape[1]
    if wanted is not None and wanted != channels:
        raise OptionError(f"the {called} is for images of {numbers(wanted, 'channel')}; {_advice(wanted, channels)}")


def channel_advice(
    network: torch.nn.Module, images: torch.Tensor, error: BaseException, constants: Mapping[str, Any] | None = None
) -> str | None:
    """Return what to do if a network fails because of the number of channels; None if it does not.

    Args:
        network: that failed; it is run again, on images of as many channels as its first convolution has, and of usual numbers.
        images: ``(N, C, H, W)``, on which it failed.
        error: that it raised.
        constants: other arguments of ``forward``, by name.
    """
    given = int(images.shape[1])
    said = [_said(pattern, str(error), given, first=first) for pattern, first in _SAID]
    first = next(_convolutions(network), None)
    candidates = dict.fromkeys(count for count in (*said, first, *_USUAL) if count not in (None, given))
    for count in candidates:
        if count is not None and _runs(network, images, count, constants or {}):
            return _advice(count, given)
    known = next((count for count in said if count is not None), None)
    return None if known is None else _advice(known, given)


def _advice(wanted: int, given: int) -> str:
    named = {1: "gray", 3: "rgb or bgr"}.get(wanted, wanted)
    return (
        f"the network takes {numbers(wanted, 'channel')} and got {given}: give --channels {named}, with --mean and "
        f"--std of {numbers(wanted)} each"
    )


def _said(pattern: re.Pattern[str], text: str, given: int, *, first: bool) -> int | None:
    found = pattern.search(text)
    if found is None:
        return None
    one, other = (int(number) for number in found.groups())
    wanted, got = (one, other) if first else (other, one)
    return wanted if got == given != wanted else None


def _convolutions(network: torch.nn.Module) -> Iterator[int]:
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            yield module.in_channels


def _runs(network: torch.nn.Module, images: torch.Tensor, channels: int, constants: Mapping[str, Any]) -> bool:
    example = images[:, :1].expand(-1, channels, -1, -1).contiguous()
    try:
        with torch.inference_mode():
            network(example, **constants)
    except Exception:  # noqa: BLE001 - the network's own code runs here and can raise anything
        return False
    return True
