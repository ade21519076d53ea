"""Where an image lies in a network's input: stretched over all of it, or in a letterbox."""

from __future__ import annotations

from dataclasses import dataclass

from .preprocessing import Preprocessing


@dataclass(frozen=True)
class Placement:
    """How one image was brought to the network's input, and so how a value a pixel is brought back.

    Attributes:
        original: height and width of the image in pixels, upright by its EXIF orientation.
        input: height and width of the network's input.
        box: top, left, height and width of the image in that input; what is around it is a letterbox's border.
    """

    original: tuple[int, int]
    input: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the network's input a pixel of the image, along height and width."""
        return self.box[2] / self.original[0], self.box[3] / self.original[1]

    @property
    def bordered(self) -> bool:
        """Whether there is a border around the image."""
        return self.box != (0, 0, *self.input)


def place(height: int, width: int, preprocessing: Preprocessing) -> Placement:
    """Return where an image of a size goes.

    With free sizes a stretched image goes to the nearest multiple in each direction, and one in a letterbox keeps its size in the
    next larger multiple. Of an odd border the smaller part is above, or on the left.

    Args:
        height: of the image, in pixels.
        width: likewise.
        preprocessing: the graph's.
    """
    step = preprocessing.multiple
    target = (preprocessing.height, preprocessing.width)
    if preprocessing.fit == "stretch":
        if step:
            target = _nearest(height, step), _nearest(width, step)
        return Placement((height, width), target, (0, 0, *target))
    if step:
        target = -(-height // step) * step, -(-width // step) * step
        inner = height, width
    elif target[0] * width <= target[1] * height:  # the height decides
        inner = target[0], _scaled(width, target[0], height, target[1])
    else:
        inner = _scaled(height, target[1], width, target[0]), target[1]
    return Placement((height, width), target, ((target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2, *inner))


def _nearest(size: int, step: int) -> int:
    return max(step, (size + step // 2) // step * step)


def _scaled(size: int, numerator: int, denominator: int, most: int) -> int:
    """Return the size times a fraction, rounded to the nearest, in 1..most."""
    return min(max((2 * size * numerator + denominator) // (2 * denominator), 1), most)
