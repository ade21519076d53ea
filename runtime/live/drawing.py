"""Frames with what was predicted on them: in windows, one for each source, or in a video file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.show.picture import caption
from mtl_deploy.runtime.show.picture import show as draw
from mtl_deploy.runtime.show.video import WINDOW, Screen, VideoWriter
from mtl_deploy.runtime.streams.result import StreamResult

from .colours import rgb

Pixels = npt.NDArray[np.uint8]

_USUAL_RATE = 25.0  # frames per second of a recording whose source does not say


class Drawing:
    """Draws results; at the end of the ``with`` block the file is finished, or the windows are closed.

    Args:
        show: ``window``, or a video file.
        tasks: the model's.
    """

    def __init__(self, show: Path, tasks: Sequence[Task]) -> None:
        self._show, self._tasks = show, tasks
        self._outputs: dict[str, Screen | VideoWriter] = {}

    def add(self, result: StreamResult, pixels: Pixels, layout: str, rate: float, nominal: float) -> bool:
        """Draw a frame.

        Args:
            result: of it.
            pixels: the frame, as it was read.
            layout: of it.
            rate: frames per second so far, which are written on it.
            nominal: frames per second of the source, at which a recording will play; 0.0: it does not say.

        Returns:
            False once the user has closed the window.

        Raises:
            ImageError: pictures cannot be shown, or not written.
        """
        label = str(result.source)
        if (output := self._outputs.get(label)) is None:
            window = str(self._show) == WINDOW
            made = Screen(label) if window else VideoWriter(self._show, nominal or _USUAL_RATE, "the video")
            output = self._outputs[label] = made
        picture = draw(rgb(pixels, layout), result.predictions, self._tasks)
        caption(picture, f"{rate:.1f} frames per second" if rate else "")
        return output.write(np.asarray(picture))

    def __enter__(self) -> Drawing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for output in self._outputs.values():
            output.close()
