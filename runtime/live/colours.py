"""What becomes of a camera's frame: for the model, for people, and the conversion of luma and chroma in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.show.video import opencv

Pixels = npt.NDArray[np.uint8]


def taken(frame: Pixels, layout: str, preprocessing: Preprocessing) -> tuple[Any, str | None]:
    """Return what ``predict`` is given for a frame, and the layout to name.

    A graph that takes frames of a camera gets the camera's own buffer where size and layout are those that it was exported for.

    Args:
        frame: as the camera gives it, see :attr:`~mtl_deploy.runtime.live.raw.RawFormat.shape`.
        layout: of it: ``bgr``, ``rgb``, ``gray``, ``nv12`` or ``yuyv``.
        preprocessing: the model's.
    """
    source = preprocessing.source
    if source is None:
        return picture(frame, layout)
    if layout == source.layout and frame.size == int(np.prod(source.shape)):
        shape = tuple(source.shape)
        if frame.shape in (shape, shape[:2]):
            return frame, None
    from PIL import Image

    return Image.fromarray(rgb(frame, layout)), None  # a picture is brought to such frames


def picture(frame: Pixels, layout: str) -> tuple[Pixels, str]:
    """Return a frame as a picture, ``(H, W, 3)`` or ``(H, W) uint8``, and its layout; OpenCV converts NV12 and YUYV.

    Raises:
        ImageError: OpenCV is needed and not installed.
    """
    if layout not in ("nv12", "yuyv"):
        return frame, layout
    cv2 = opencv(f"frames in {layout}")
    converted: Pixels = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12 if layout == "nv12" else cv2.COLOR_YUV2RGB_YUYV)
    return converted, "rgb"


def rgb(frame: Pixels, layout: str) -> Pixels:
    """Return a frame as ``(H, W, 3) uint8``, RGB, C-contiguous."""
    pixels, layout = picture(frame, layout)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., ::-1]) if layout == "bgr" else pixels
