"""Videos and windows to show predictions in, through OpenCV."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.show.video import FrameRate, Screen, VideoWriter

pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")


def test_a_rate_is_the_mean_over_recent_times() -> None:
    now = [0.0]
    meter = FrameRate(lambda: now[0])
    assert meter.rate == 0.0
    for _ in range(5):
        meter.tick()
        now[0] += 0.1
    assert meter.rate == pytest.approx(10.0)
    for _ in range(40):
        meter.tick()
        now[0] += 0.5
    assert meter.rate == pytest.approx(2.0)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        closing(VideoWriter(tmp_path / "missing" / "out.mp4", 10.0)) as recorder,
        pytest.raises(ImageError, match="write"),
    ):
        recorder.write(np.zeros((32, 32, 3), np.uint8))


def test_a_window_without_a_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ImageError, match=r"--show out\.mp4"):
        Screen("test")
