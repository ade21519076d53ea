"""Boxes cut out of a frame: each is an image of its own, whose results go back to the frame."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError, OptionError

from .channels import in_network_channels
from .files import ARRAY_SUFFIX, failing_as, opened_encoded, opened_image
from .fit import ImagePlacement
from .layout import Frame, Layout, frame_of
from .loading import as_array, fitted, frame_of_file, is_pillow
from .parallel import each
from .tensors import PreparedImages, stacked, whole_batch

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    from .loading import Images

Box = tuple[int, int, int, int]
"""Top, left, height and width in whole pixels, inside the frame."""


def prepare_boxes(
    frame: Images,
    boxes: Sequence[Sequence[float]],
    margin: float,
    preprocessing: Preprocessing,
    layout: Layout = "rgb",
) -> PreparedImages:
    """Cut boxes out of one image and bring each to the network's size, in parallel; one batch, unless sizes are free.

    Args:
        frame: one image, as :func:`~mtl_deploy.runtime.images.loading.prepare_all` takes it.
        boxes: ``(x, y, width, height)`` each, in pixels of the frame, upright by its EXIF orientation. The pixels that they touch
            are cut out, as far as they lie inside the frame. There may be none.
        margin: that is cut out with a box, on each side: a share of the box's width and height.
        preprocessing: the graph's.
        layout: of an array.

    Raises:
        ImageError: the frame is no single image, or a box is malformed or lies outside.
        OptionError: the margin is negative or no number.
    """
    if preprocessing.source is not None:
        raise ImageError(
            f"got boxes, and this graph takes {preprocessing.source.description} and resizes them whole: cut boxes out with a "
            "bundle that was exported without --source"
        )
    if not (isinstance(margin, (int, float)) and math.isfinite(margin) and margin >= 0):
        raise OptionError(f"margin {margin!r}: give a share of the box's size, 0 or more, such as 0.2")
    whole = _whole(frame, preprocessing, layout)
    height, width = whole.samples.shape[:2]
    found = [_inside(index, box, margin, height, width) for index, box in enumerate(boxes)]

    def load(index: int, out: Any = None) -> tuple[Any, ImagePlacement]:
        top, left, high, wide = found[index]
        cut = replace(whole, samples=whole.samples[top : top + high, left : left + wide])
        pixels, placement = fitted(cut, preprocessing, out)
        return pixels, replace(placement, frame=(height, width), origin=(top, left))

    if not found:
        return PreparedImages((), (), single=False)
    if preprocessing.multiple:
        return stacked(each(load, len(found)), preprocessing)
    batch = np.empty((len(found), preprocessing.height, preprocessing.width, preprocessing.channel_count), np.uint8)
    return whole_batch(batch, each(lambda index: load(index, batch[index])[1], len(found)), preprocessing)


def _whole(image: Any, preprocessing: Preprocessing, layout: Layout) -> Frame:
    """Return one image at its own size."""
    image = as_array(image)
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return frame_of(image, preprocessing, layout)
    if isinstance(image, (str, os.PathLike)):
        if os.fspath(image).lower().endswith(ARRAY_SUFFIX):
            with failing_as(os.fspath(image)):
                return frame_of_file(image, preprocessing, layout)
        with opened_image(image, channels=preprocessing.channel_count) as opened:
            return _of_picture(opened, preprocessing)
    if isinstance(image, (bytes, bytearray, memoryview)):
        with opened_encoded(image, channels=preprocessing.channel_count) as opened:
            return _of_picture(opened, preprocessing)
    if is_pillow(image):
        with failing_as("the image"):
            return _of_picture(image, preprocessing)
    what = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
    raise ImageError(f"got {what} with boxes; they are cut out of one image: pass one, not a list or a batch")


def _of_picture(image: PillowImage.Image, preprocessing: Preprocessing) -> Frame:
    pixels = np.asarray(in_network_channels(image, preprocessing))
    return Frame(pixels if pixels.ndim == 3 else pixels[..., None])


def _inside(index: int, box: Sequence[float], margin: float, height: int, width: int) -> Box:
    """Return the pixels that a box with its margin touches."""
    try:
        x, y, wide, high = (float(number) for number in box)
    except (TypeError, ValueError):
        raise ImageError(f"boxes[{index}] is {box!r}; give x, y, width and height in pixels of the frame") from None
    if not all(map(math.isfinite, (x, y, wide, high))) or wide <= 0 or high <= 0:
        raise ImageError(
            f"boxes[{index}]: x {x:g}, y {y:g}, width {wide:g}, height {high:g}; width and height must be above 0"
        )
    left, right = x - margin * wide, x + wide + margin * wide
    top, bottom = y - margin * high, y + high + margin * high
    spans = (
        (max(math.floor(top), 0), min(math.ceil(bottom), height)),
        (max(math.floor(left), 0), min(math.ceil(right), width)),
    )
    (above, below), (before, behind) = spans
    if above >= below or before >= behind:
        raise ImageError(
            f"boxes[{index}]: x {x:g}, y {y:g}, width {wide:g}, height {high:g} lies outside the frame of {height}x{width} "
            "(height x width)"
        )
    return above, before, below - above, behind - before
