"""How the caller's arrays hold their colours, and what becomes of each channel on the way to a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError, OptionError

from .array_resize import luma

Pixels = npt.NDArray[np.uint8]
Layout = Literal["rgb", "bgr", "gray"]
"""The colours of an array's channels: ``rgb``; ``bgr``, as OpenCV has them; ``gray``, one channel. A fourth channel is an alpha."""

_COLOURS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}


def layout_of(layout: str) -> Layout:
    """Return a layout by its name, in any case.

    Raises:
        OptionError: there is none.
    """
    for known in get_args(Layout):
        if isinstance(layout, str) and layout.lower() == known:
            return known  # type: ignore[no-any-return]
    raise OptionError(f"layout {layout!r}: choose {', '.join(get_args(Layout))}")


@dataclass(frozen=True)
class Frame:
    """An array as an image.

    Attributes:
        samples: ``(..., H, W, c) uint8``, with the caller's channels.
        picks: which of these is each channel that the network's images have (R, G, B); None: they are the same.
    """

    samples: Pixels
    picks: tuple[int, ...] | None = None

    def arranged(self, pixels: Pixels) -> Pixels:
        """Return pixels ``(..., c)`` that were made of the samples, with the channels of the network's images."""
        return pixels if self.picks is None else np.take(pixels, self.picks, axis=-1)


def frame_of(array: npt.NDArray[Any], preprocessing: Preprocessing, layout: Layout, *, batch: bool = False) -> Frame:
    """Return an array as an image, or as a batch of them.

    For a network of colours one channel is tripled, and an alpha dropped; for one of gray, colours become Pillow's ``L``. Other
    networks take their own number of channels, as they are. Of 16 bits the upper 8 are taken.

    Args:
        array: ``(H, W)`` or ``(H, W, c)``, ``uint8`` or ``uint16``; a batch has one dimension more, and always channels.
        preprocessing: the graph's.
        layout: of the array; no matter where it has one channel.
        batch: whether it is a batch.

    Raises:
        ImageError: the array has another dtype, shape or number of channels.
    """
    count = preprocessing.channel_count
    given = checked(array, preprocessing, layout, batch=batch)
    samples = array if array.ndim == 3 + batch else array[..., None]
    if samples.dtype != np.uint8:
        samples = (samples >> 8).astype(np.uint8)
    if count == 1:
        return Frame(samples if given == 1 else luma(samples, _COLOURS[layout]))
    if count != 3:
        return Frame(samples)
    if given == 1:
        return Frame(samples, (0, 0, 0))
    return Frame(samples, None if given == 3 and layout == "rgb" else _COLOURS[layout])


def checked(array: npt.NDArray[Any], preprocessing: Preprocessing, layout: Layout, *, batch: bool = False) -> int:
    """Return the number of channels that an array holds.

    Args:
        array: an image, or a batch of them, as :func:`frame_of` takes it.
        preprocessing: the graph's.
        layout: of the array.
        batch: whether it is a batch.

    Raises:
        ImageError: the array has another dtype, shape or number of channels.
    """
    count = preprocessing.channel_count
    given = int(array.shape[-1]) if array.ndim == 3 + batch else 0
    if array.ndim == 2 and not batch and count in (1, 3):
        given = 1
    colours = given in (3, 4) and layout != "gray"
    fits = (colours or given == 1) if count in (1, 3) else given == count and layout == "rgb"
    if not fits or not holds_pixels(array) or not array.size:
        raise ImageError(
            f"got {array.dtype} of shape {array.shape}; expected {expected_array(preprocessing, layout, batch=batch)}"
            f"{hint(array, count, layout)}"
        )
    return given


def holds_pixels(array: npt.NDArray[Any]) -> bool:
    """Return whether an array is of a type that pixels have: ``uint8``, or ``uint16`` of any byte order."""
    return array.dtype.kind == "u" and array.dtype.itemsize <= 2


def expected_array(preprocessing: Preprocessing, layout: Layout, *, batch: bool = False) -> str:
    """For errors: which array is taken."""
    count = preprocessing.channel_count
    if count not in (1, 3):
        names, given = "", count
        if layout != "rgb":
            names = f" (layout {layout} is for networks of colours or gray)"
    else:
        given = 1 if layout == "gray" or count == 1 else 3
        names = ", gray" if given == 1 else f", {layout.upper()}"
    if batch:
        return f"uint8 (H, W, {given}) or a batch (N, H, W, {given}){names}"
    return f"uint8 {'(H, W) or ' if given == 1 else ''}(H, W, {given}){names}"


def hint(array: npt.NDArray[Any], count: int, layout: Layout) -> str:
    """Return, for an error, how an array becomes an image of so many channels, or a batch of them: its type first.

    Args:
        array: that was refused: an image, or a batch with four dimensions.
        count: of the channels that the network takes.
        layout: the caller's.

    Returns:
        half-sentences, each behind a semicolon; nothing where no way is known.
    """
    if batch := array.ndim == 4:
        array = array[0] if len(array) else array[:, 0]
    last = array.shape[2] if array.ndim == 3 else 0
    hints = []
    if not holds_pixels(array) and array.ndim in (2, 3):
        hints.append("give the values as uint8, 0 to 255, without normalisation")
    if array.ndim == 3 and array.shape[0] == count != last and not (count in (1, 3) and last in (1, 3, 4)):
        way = "images.transpose(0, 2, 3, 1)" if batch else "image.transpose(1, 2, 0)"
        hints.append(f"move the channels to the end: {way}")
    elif layout == "gray" and last in (3, 4) and count in (1, 3):
        hints.append("layout gray is of one channel: say rgb or bgr")
    elif not batch and count == 1 and last > 4 and array.shape[0] in (3, 4):
        hints.append(
            "make planes of colours an image: image.transpose(1, 2, 0); a batch of gray images is images[..., None]"
        )
    elif not batch and count == 1 and last > 1 and last not in (3, 4):
        hints.append("a batch has the channel as its last dimension: images[..., None]")
    return "".join(f"; {way}" for way in hints)
