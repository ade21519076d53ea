"""Video files for tests: written and read back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.live.capture import Frames
from mtl_deploy.runtime.live.sources import Source, source_of
from mtl_deploy.runtime.show.video import VideoWriter

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def clip(file: Path, count: int = 7, size: tuple[int, int] = (48, 64)) -> list[Pixels]:
    """Write a clip whose frames are told apart by their brightness, and whose left half is red."""
    frames = [np.full((*size, 3), 20 + 30 * number, np.uint8) for number in range(count)]
    with closing(VideoWriter(file, 10.0)) as recorder:
        for frame in frames:
            frame[:, : size[1] // 2] = (200, 30, 30)
            assert recorder.write(frame)
    return frames


def source(text: str | Path) -> Source:
    """Return a video or a live source."""
    found = source_of(str(text))
    assert found is not None
    return found


def frames_of(file: Path) -> list[Pixels]:
    """Return the frames of a file, ``(H, W, 3) uint8``, RGB."""
    with Frames(source(file)) as frames:
        return [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
