"""Video files and cameras as a source of images, through OpenCV (the extra ``video``), with the frame rate on each frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.files.output_file import check_outputs, placed
from mtl_deploy.runtime.predictions.decoding import Prediction

if TYPE_CHECKING:
    from mtl_deploy.runtime.model import Model

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))
CAMERA = "camera:"
WINDOW = "window"
_RECENT = 30  # frames over which the frame rate is averaged


def is_video(source: str | Path) -> bool:
    """Return whether a source is a camera (``camera:0``) or a video file by its name."""
    return str(source).startswith(CAMERA) or Path(source).suffix.lower() in SUFFIXES


class Frames:
    """The frames of a video file or a camera, in order; iterate once.

    Args:
        source: a file, or ``camera:N``, N being the system's number of the camera.

    Attributes:
        rate: frames per second by the source's own word; 0.0 where it does not know.

    Raises:
        ImageError: OpenCV is missing or cannot open the source.
    """

    def __init__(self, source: str | Path) -> None:
        cv2 = _opencv(str(source))
        self._source = str(source)
        if self._source.startswith(CAMERA):
            number = self._source.removeprefix(CAMERA)
            if not number.isdecimal():
                raise OptionError(f"{self._source}: write {CAMERA}N with the camera's number, such as {CAMERA}0")
            self._capture: Any = cv2.VideoCapture(int(number))
        else:
            if not Path(source).is_file():
                raise ImageError(f"{source}: no such file")
            self._capture = cv2.VideoCapture(self._source)
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(
                f"{self._source}: OpenCV cannot open it (no such camera, no permission, or no codec for it)"
            )
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if np.isfinite(rate) and 0 < rate < 1000 else 0.0

    def __iter__(self) -> Iterator[Pixels]:
        """Yield ``(H, W, 3) uint8``, RGB."""
        while True:
            fine, frame = self._capture.read()
            if not fine:
                return
            yield np.ascontiguousarray(frame[:, :, ::-1])

    def close(self) -> None:
        """Release the file or camera."""
        self._capture.release()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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
        self._cv2 = _opencv(WINDOW)
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
        self._cv2 = _opencv(str(file))
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


def play(
    model: Model,
    source: str | Path,
    show: str | Path | None,
    told: Callable[[int, Mapping[str, Prediction], float], None] = lambda *_: None,
    *,
    force: bool = False,
) -> int:
    """Predict every frame of a source, and show them with what was predicted and the frame rate.

    The rate counts whole frames: reading, predicting, drawing and writing or showing.

    Args:
        model: predicts.
        source: a video file, or ``camera:N``.
        show: ``window``, a video file to write, or None.
        force: replace ``show`` where it exists.
        told: called with each frame's number, its predictions and the frame rate so far.

    Returns:
        the number of frames.

    Raises:
        ImageError: the source cannot be read, or pictures cannot be shown.
        OptionError: the file to write exists, or cannot be written.
    """
    if show is None or str(show) == WINDOW:
        return _play(model, source, show, told)
    check_outputs("--show", [Path(show)], [Path(source)], force=force)
    interrupt: KeyboardInterrupt | None = None
    count = 0
    with placed("--show", Path(show), force=force) as beside:
        try:
            count = _play(model, source, beside, told)
        except KeyboardInterrupt as error:  # the recording stays: this is how a camera is stopped without a window
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return count


def _play(
    model: Model,
    source: str | Path,
    show: str | Path | None,
    told: Callable[[int, Mapping[str, Prediction], float], None],
) -> int:
    from .picture import caption
    from .picture import show as draw

    channels = model.signature.preprocessing.channel_count
    if channels not in (1, 3):
        raise OptionError(f"{source}: a video has 3 channels, and the network takes {channels}; pass arrays to predict")
    meter = FrameRate()
    count = 0
    with Frames(source) as frames:
        output: Screen | VideoWriter | None = None
        if show is not None:
            output = (
                Screen(str(source))
                if str(show) == WINDOW
                else VideoWriter(Path(show), frames.rate or 25.0, "the video")
            )
        with nullcontext() if output is None else closing(output):
            for frame in frames:
                predictions: Mapping[str, Prediction] = (
                    model.predict(frame, layout="rgb")
                    if model.signature.preprocessing.source is None
                    else model.predict(_as_picture(frame))
                )
                meter.tick()
                count += 1
                told(count, predictions, meter.rate)
                if output is not None:
                    picture = draw(frame, predictions, model.tasks)
                    caption(picture, f"{meter.rate:.1f} frames per second" if meter.rate else "")
                    if not output.write(np.asarray(picture)):
                        break
    if count == 0:
        raise ImageError(f"{source}: no frame could be read from it")
    return count


def _as_picture(frame: Pixels) -> Any:
    """Return a frame as a PIL image, which becomes a frame of the size and layout that a graph takes."""
    from PIL import Image

    return Image.fromarray(frame)


def _opencv(what: str) -> Any:
    try:
        import cv2
    except ImportError:
        raise ImageError(f"{what}: video needs OpenCV: pip install 'mtl-deploy[video]'") from None
    return cv2
