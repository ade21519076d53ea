"""Frames that OpenCV reads (the extra ``video``): files, cameras, network streams, and GStreamer pipelines where it has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.show.video import opencv

from .reasons import reason
from .sources import CAMERA, Source

Pixels = npt.NDArray[np.uint8]

TIMEOUT = 10.0  # seconds that a network stream may take to open, and to send the next frame


class Frames:
    """The frames of a source, in order; iterate once.

    Args:
        source: anything but a pipe.
        timeout: of a network stream, in seconds.

    Attributes:
        layout: of the frames, OpenCV's ``bgr``.
        rate: frames per second by the source's own word; 0.0 where it does not know.
        finite: whether it says how many frames it has, so that it ends by itself.

    Raises:
        ImageError: OpenCV is missing, or cannot open the source: why, as far as can be told.
    """

    layout = "bgr"

    def __init__(self, source: Source, timeout: float = TIMEOUT) -> None:
        # libraries print addresses with their passwords; what a user needs to know is in our own messages
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2 = opencv(source.label)
        self._source = source
        if source.kind == "pipeline" and not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise ImageError(
                f"{source.label}: this OpenCV {cv2.__version__} has no GStreamer, and none that pip installs has: use the system's "
                "(apt install python3-opencv, or JetPack's)"
            )
        self._capture = _opened(cv2, source, timeout)
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(f"{source.label}: {reason(source)}")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if np.isfinite(rate) and 0 < rate < 1000 else 0.0
        self.finite = source.kind == "file" or float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) > 0

    def __iter__(self) -> Iterator[Pixels]:
        """Yield ``(H, W, 3) uint8``, BGR, until there are no more or the source is lost."""
        while True:
            fine, frame = self._capture.read()
            if not fine:
                return
            yield frame

    def close(self) -> None:
        """Release the file or camera."""
        self._capture.release()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _opened(cv2: Any, source: Source, timeout: float) -> Any:
    """Return a capture, which may not be open."""
    if source.kind == "camera":
        number = source.text.removeprefix(CAMERA)
        capture = cv2.VideoCapture(int(number) if number.isdecimal() else source.text)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, where the driver can
        return capture
    if source.kind == "pipeline":
        return cv2.VideoCapture(source.text, cv2.CAP_GSTREAMER)
    if source.kind == "url":
        milliseconds = round(1000 * timeout)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        return cv2.VideoCapture(source.text, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(source.text)
