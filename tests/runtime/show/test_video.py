"""Video files and cameras, through OpenCV."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime import load
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.show.video import FrameRate, Frames, Screen, VideoWriter, is_video, play

pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")


def clip(file: Path, count: int = 7, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Write a clip whose frames are told apart by their brightness."""
    frames = [np.full((*size, 3), 20 + 30 * number, np.uint8) for number in range(count)]
    with closing(VideoWriter(file, 10.0)) as recorder:
        for frame in frames:
            frame[:, : size[1] // 2] = (200, 30, 30)
            assert recorder.write(frame)
    return frames


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_a_recorded_clip_comes_back_in_rgb(tmp_path: Path, name: str) -> None:
    written = clip(tmp_path / name)
    with Frames(tmp_path / name) as frames:
        assert frames.rate == pytest.approx(10.0)
        found = list(frames)
    assert len(found) == len(written)
    for one, other in zip(found, written, strict=True):
        assert one.shape == other.shape
        assert one.flags.c_contiguous
        assert np.abs(one[8:-8, 40:56].astype(int) - other[8:-8, 40:56]).mean() < 12
        assert one[24, 10, 0] > 150  # red stays red
        assert one[24, 10, 2] < 80


def test_frames_are_predicted_drawn_and_written(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    clip(tmp_path / "in.mp4")
    told: list[tuple[int, Prediction, float]] = []
    with load(make_bundle()) as model:
        count = play(
            model,
            tmp_path / "in.mp4",
            tmp_path / "out.mp4",
            lambda n, found, rate: told.append((n, found["age"], rate)),
        )
    assert count == 7
    assert [number for number, _, _ in told] == list(range(1, 8))
    ages = [float(prediction.value) for _, prediction, _ in told]
    assert ages == sorted(ages)  # the tiny network looks at brightness
    assert told[0][2] == 0.0
    assert told[-1][2] > 0.0
    with Frames(tmp_path / "out.mp4") as frames:
        shown = list(frames)
        assert frames.rate == pytest.approx(10.0)
    assert len(shown) == 7
    assert shown[0].shape[0] > 320  # enlarged, with the text below
    corner = [frame[:40, :200].astype(int) for frame in shown]
    assert np.abs(corner[3] - corner[0]).mean() > 5  # the second frame on has the frame rate on it


def test_without_a_picture_frames_are_only_predicted(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    clip(tmp_path / "in.avi", count=3)
    with load(make_bundle()) as model:
        assert play(model, tmp_path / "in.avi", None) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.avi", "tiny.mtl"]


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


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.mp4", ImageError, "no such file"),
        ("broken.mp4", ImageError, "cannot open"),
        ("camera:first", OptionError, "camera:0"),
        ("camera:97", ImageError, "no such camera"),
    ],
)
def test_sources_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(error, match=message):
        Frames(source)


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


def test_what_is_a_video() -> None:
    assert is_video("camera:0")
    assert is_video(Path("a/b.MP4"))
    assert not is_video("face.jpg")


def test_without_opencv_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImageError, match=r"mtl-deploy\[video\]"):
        Frames("camera:0")
