"""Video as an output, through OpenCV (the extra ``video``): windows and files, and the frame rate."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError

if TYPE_CHECKING:
    pass

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))
WINDOW = "window"
_RECENT = 30  # frames over which the frame rate is averaged


class FrameRate:
    """The frame rate: the mean over the last thirty frames.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_RECENT + 1)

    def tick(self) -> None:
        """Count a frame."""
        self._times.append(self._clock())

    @property
    def rate(self) -> float:
        """Frames per second; 0.0 until there were two."""
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])


class Screen:
    """A window that shows pictures until ``q`` or Escape is pressed in it, or it is closed.

    Raises:
        ImageError: OpenCV is missing, is the headless one, or finds no display.
    """

    def __init__(self, title: str) -> None:
        self._cv2 = opencv(WINDOW)
        self._title = title
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise ImageError(
                "no window can be opened here: it takes a display and an OpenCV that is not headless (pip uninstall --yes "
                "opencv-python-headless, then pip install opencv-python); or write a file with --show out.mp4"
            ) from error

    def write(self, picture: Pixels) -> bool:
        """Show ``(H, W, 3) uint8``, RGB; return False once the user has closed it."""
        self._cv2.imshow(self._title, picture[:, :, ::-1])
        pressed = self._cv2.waitKey(1) & 0xFF
        closed = self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1
        return not (pressed in (ord("q"), 27) or closed)

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()


class VideoWriter:
    """A video file that pictures of one size are written to.

    Args:
        file: its name; the suffix chooses the container (``.mp4``, ``.avi``, ...).
        rate: frames per second at which it will play.
        called: how errors call it; None: by its name.

    Raises:
        ImageError: OpenCV is missing, or (at the first picture) has no encoder for such a file.
    """

    def __init__(self, file: Path, rate: float, called: str | None = None) -> None:
        self._cv2 = opencv(str(file))
        self._file, self._rate = file, rate
        self._called = file.name if called is None else called
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, picture: Pixels) -> bool:
        """Append ``(H, W, 3) uint8``, RGB; always returns True. Pictures of another size are resized to that of the first."""
        if self._writer is None:
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)  # encoders want even sizes
            code = "MJPG" if self._file.suffix.lower() == ".avi" else "mp4v"
            self._writer = self._cv2.VideoWriter(
                str(self._file), self._cv2.VideoWriter_fourcc(*code), self._rate, self._size
            )
            if not self._writer.isOpened():
                raise ImageError(
                    f"{self._called}: OpenCV cannot write such a file; use .mp4 or .avi in an existing folder"
                )
        even = picture[: self._size[1], : self._size[0]]
        if even.shape[:2] != (self._size[1], self._size[0]):
            even = self._cv2.resize(picture, self._size)
        self._writer.write(np.ascontiguousarray(even[:, :, ::-1]))
        return True

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def opencv(what: str) -> Any:
    """Return OpenCV.

    Args:
        what: needs it, for the error.

    Raises:
        ImageError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise ImageError(f"{what}: video needs OpenCV: pip install 'mtl-deploy[video]'") from None
    return cv2
