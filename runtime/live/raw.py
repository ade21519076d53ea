"""Raw frames from a pipe: nothing but pixels, one frame behind another, as FFmpeg and GStreamer write them."""

from __future__ import annotations

import os
import re
import select
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError, MtlWarning, OptionError

Pixels = npt.NDArray[np.uint8]

BYTES = {"bgr": 3.0, "rgb": 3.0, "gray": 1.0, "nv12": 1.5, "yuyv": 2.0}
"""Bytes for each pixel, by format."""
_MOST_BYTES = 1 << 28  # of a frame: two 8K frames in RGB
_BEAT = 0.2  # seconds after which a reader looks whether it shall end
_PIPE_BYTES = 1 << 20  # what may lie in a pipe, where the system allows it


class CutFrameWarning(MtlWarning):
    """A pipe ended within a frame."""


@dataclass(frozen=True)
class RawFormat:
    """How pixels lie in a raw frame.

    Attributes:
        width: of a frame, in pixels.
        height: of it.
        name: ``bgr``, ``rgb``, ``gray``; ``nv12`` (a plane of luma, then one of chroma, U and V in turn, half as high and wide); or
            ``yuyv`` (luma and chroma in turn).
    """

    width: int
    height: int
    name: str

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        return round(self.width * self.height * BYTES[self.name])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the ``uint8`` array of a frame: ``(H, W, 3)``, ``(H, W)``, of NV12 ``(H * 3 / 2, W)``, of YUYV ``(H, W, 2)``."""
        if self.name == "nv12":
            return self.height * 3 // 2, self.width
        return {"gray": (self.height, self.width), "yuyv": (self.height, self.width, 2)}.get(
            self.name, (self.height, self.width, 3)
        )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.name}"


def raw_format(text: str) -> RawFormat:
    """Read a format such as ``1280x720:bgr``.

    Raises:
        OptionError: it is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5}):(\w+)", text)
    if found is None or found[3].lower() not in BYTES:
        raise OptionError(f"--raw {text}: write WIDTHxHEIGHT:FORMAT with {', '.join(BYTES)}, such as 1280x720:bgr")
    made = RawFormat(int(found[1]), int(found[2]), found[3].lower())
    if (made.name in ("nv12", "yuyv") and made.width % 2) or (made.name == "nv12" and made.height % 2):
        raise OptionError(f"--raw {text}: {made.name} shares colours between pixels, so sizes are even")
    if made.size > _MOST_BYTES:
        raise OptionError(
            f"--raw {text}: a frame would have {made.size >> 20} MiB; at most {_MOST_BYTES >> 20} are taken"
        )
    return made


class RawFrames:
    """The frames of a pipe, in order; iterate once.

    Args:
        descriptor: of the file to read from; it is not closed.
        form: of the frames.
        name: of the pipe, for messages.
        stopped: asked a few times a second while nothing comes; True ends the frames.

    Attributes:
        layout: of the frames.
        rate: 0.0: a pipe does not say.
        finite: True: a pipe that ends does not come back.
    """

    rate = 0.0
    finite = True

    def __init__(
        self, descriptor: int, form: RawFormat, name: str, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._descriptor, self._form, self._name, self._stopped = descriptor, form, name, stopped
        self.layout = form.name
        _enlarge(descriptor)

    def __iter__(self) -> Iterator[Pixels]:
        """Yield frames of the format's shape, each an array of its own.

        Warns:
            CutFrameWarning: the last frame is not whole; it is left out.

        Raises:
            ImageError: not even the first frame is whole, or the pipe cannot be read.
        """
        count = 0
        while not self._stopped():
            frame = np.empty(self._form.size, np.uint8)
            got = self._fill(memoryview(frame.data))
            if got == len(frame):
                count += 1
                yield frame.reshape(self._form.shape)
                continue
            if not self._stopped():
                self._tell(got, len(frame), count)
            return

    def _tell(self, got: int, whole: int, count: int) -> None:
        if not count:
            raise ImageError(
                f"{self._name}: it ended after {got} bytes, and the first frame has {whole} (--raw {self._form})"
            )
        if got:
            warnings.warn(
                f"{self._name}: the last frame is cut off after {got} of {whole} bytes and left out: the writer was ended, or "
                f"writes other frames than --raw {self._form}",
                CutFrameWarning,
                stacklevel=2,
            )

    def _fill(self, buffer: memoryview) -> int:
        """Fill a buffer and return how many bytes came: fewer at the end of the pipe, and when this shall stop."""
        filled = 0
        while filled < len(buffer):
            try:
                if not select.select([self._descriptor], [], [], _BEAT)[0]:
                    if self._stopped():
                        break
                    continue
                got = os.readv(self._descriptor, [buffer[filled:]])
            except OSError as error:
                raise ImageError(f"{self._name}: {error.strerror or error}") from error
            if not got:
                break
            filled += got
        return filled

    def close(self) -> None:
        """Leave the pipe as it is: it belongs to the caller."""

    def __enter__(self) -> RawFrames:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _enlarge(descriptor: int) -> None:
    """Let more lie in a pipe than the 64 KiB that Linux starts with, so that a frame takes fewer calls."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined,unused-ignore]
    except (ImportError, AttributeError, OSError):  # no pipe, another system, or a user's quota
        return
