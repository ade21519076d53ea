"""Where an image lies in a network's input: stretched over all of it, in a letterbox, or cropped to its centre."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing


@dataclass(frozen=True)
class ImagePlacement:
    """How one image was fitted to the network's input, and so how the values of its pixels are mapped back.

    Attributes:
        original: height and width of the image in pixels, upright by its EXIF orientation.
        input: height and width of the network's input.
        box: top, left, height and width of the image in that input; what is around it is a border. The box of a cropped
            image reaches beyond the input: its top and left are negative.
        frame: height and width of the frame that the image was cut out of, whose coordinates results have; None: of none.
        origin: top and left of the image in that frame.
    """

    original: tuple[int, int]
    input: tuple[int, int]
    box: tuple[int, int, int, int]
    frame: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the network's input per pixel of the image, along height and width."""
        return self.box[2] / self.original[0], self.box[3] / self.original[1]

    @property
    def bordered(self) -> bool:
        """Whether the image does not fill the input exactly: there is a border around it, or parts of it lie outside."""
        return self.box != (0, 0, *self.input)

    @property
    def cropped(self) -> bool:
        """Whether parts of the image lie outside the input, so that the network has not seen them."""
        top, left, height, width = self.box
        return top < 0 or left < 0 or top + height > self.input[0] or left + width > self.input[1]

    @property
    def partial(self) -> bool:
        """Whether the network has not seen all pixels that results are for: of a cropped image, or of a frame around a box."""
        return self.cropped or self.frame is not None

    def paste(self, image: npt.NDArray[Any], canvas: npt.NDArray[Any]) -> None:
        """Copy an image into a canvas of the input's size, as far as it lies inside.

        Args:
            image: has the box's height and width.
            canvas: has the input's.
        """
        top, left, height, width = self.box
        above, before = max(top, 0), max(left, 0)
        below, behind = min(top + height, self.input[0]), min(left + width, self.input[1])
        canvas[above:below, before:behind] = image[above - top : below - top, before - left : behind - left]


def place(height: int, width: int, preprocessing: Preprocessing) -> ImagePlacement:
    """Return where an image of this size goes.

    With free sizes a stretched image goes to the nearest multiple in each direction, and one in a letterbox keeps its size in the
    next larger multiple. The smaller part of an odd border is above, or on the left. A cropped image goes where torchvision's
    ``Resize`` and ``CenterCrop`` put it (``torchvision/transforms/functional.py``, ``_compute_resized_output_size`` and
    ``center_crop``): the longer side is rounded down, a crop that begins between two pixels begins at the even one, and
    a side that is shorter than the crop gets a border, its smaller part above or on the left. For a graph that takes frames, an
    image of another size is stretched to a frame first, which is then placed.

    Args:
        height: of the image, in pixels.
        width: likewise.
        preprocessing: the graph's.
    """
    if (source := preprocessing.source) is not None:
        return replace(place(source.height, source.width, preprocessing.seen), original=(height, width))
    step = preprocessing.multiple
    target = (preprocessing.height, preprocessing.width)
    if preprocessing.fit == "crop":
        inner = _resized(height, width, preprocessing.resize_to)
        offsets = [_offset(side, crop) for side, crop in zip(inner, target, strict=True)]
        return ImagePlacement((height, width), target, (offsets[0], offsets[1], *inner))
    if preprocessing.fit == "stretch":
        if step:
            target = _nearest(height, step), _nearest(width, step)
        return ImagePlacement((height, width), target, (0, 0, *target))
    if step:
        target = -(-height // step) * step, -(-width // step) * step
        inner = height, width
    elif target[0] * width <= target[1] * height:  # the height decides
        inner = target[0], _scaled(width, target[0], height, target[1])
    else:
        inner = _scaled(height, target[1], width, target[0]), target[1]
    return ImagePlacement((height, width), target, ((target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2, *inner))


def _resized(height: int, width: int, resize_to: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width before the crop."""
    if len(resize_to) == 2:
        return resize_to[0], resize_to[1]
    (short,) = resize_to
    if width <= height:
        return int(short * height / width), short  # a float's quotient, as torchvision has it
    return short, int(short * width / height)


def _offset(side: int, crop: int) -> int:
    """Return where a side begins in the crop: at 0 or below where it is longer, else after the smaller half of the border."""
    return (crop - side) // 2 if side < crop else -round((side - crop) / 2)


def _nearest(size: int, step: int) -> int:
    return max(step, (size + step // 2) // step * step)


def _scaled(size: int, numerator: int, denominator: int, most: int) -> int:
    """Return the size times a fraction, rounded to the nearest, in 1..most."""
    return min(max((2 * size * numerator + denominator) // (2 * denominator), 1), most)
