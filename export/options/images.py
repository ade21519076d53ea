"""What is said about the images that a network takes: by the user, or by a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from mtl_deploy.runtime.bundle.preprocessing import Fit, InputFormat, Interpolation, Order
from mtl_deploy.runtime.bundle.source import Source

DEFAULT_SIZE = (224, 224)
DEFAULT_MULTIPLE = 32  # the largest stride of most networks
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
Channels = tuple[float, ...]


@dataclass(frozen=True)
class Described:
    """Parts of a preprocessing. A part that is None was not specified.

    Attributes:
        size: height and width of the network's input, in pixels.
        fit: how images are brought to that size.
        resize_to: for a crop, see :class:`~mtl_deploy.runtime.bundle.preprocessing.Preprocessing`.
        interpolation: how images are resized.
        channels: what the network was trained on, see :class:`~mtl_deploy.runtime.bundle.preprocessing.Preprocessing`.
        mean: per channel, of pixel values from 0 to 1; what the user said is in the network's order, a preset's is R, G, B.
        std: likewise.
    """

    size: tuple[int, int] | None = None
    fit: Fit | None = None
    resize_to: tuple[int, ...] | None = None
    interpolation: Interpolation | None = None
    channels: Order | None = None
    mean: Channels | None = None
    std: Channels | None = None


@dataclass(frozen=True)
class Stated(Described):
    """What the user said.

    Attributes:
        input: the form of the graph's input.
        multiple: height and width are free and multiples of this; 0: they are fixed.
        source: the frames that the graph takes and resizes itself; None: it takes images of the network's size.
        transform: a preset's name, such as ``torchvision:ResNet50_Weights.IMAGENET1K_V2``; None: the one in the checkpoint,
            if there is one.
    """

    input: InputFormat = "uint8"
    multiple: int = 0
    source: Source | None = None
    transform: str | None = None
