"""Frames that OpenCV reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.live.capture import Frames
from tests.clips import clip, frames_of, source
from tests.runtime.live.servers import Camera

cv2 = pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_a_recorded_clip_comes_back(tmp_path: Path, name: str) -> None:
    written = clip(tmp_path / name)
    with Frames(source(tmp_path / name)) as frames:
        assert frames.rate == pytest.approx(10.0)
        assert frames.finite
        assert frames.layout == "bgr"
    found = frames_of(tmp_path / name)
    assert len(found) == len(written)
    for one, other in zip(found, written, strict=True):
        assert one.shape == other.shape
        assert np.abs(one[8:-8, 40:56].astype(int) - other[8:-8, 40:56]).mean() < 12
        assert one[24, 10, 0] > 150  # red stays red
        assert one[24, 10, 2] < 80


def test_the_frames_of_a_network_camera_come_in_order() -> None:
    with Camera(frames=4) as camera, Frames(source(camera.url)) as frames:
        assert not frames.finite
        assert [round(float(frame.mean()) / 30) for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.mp4", "no such file"),
        ("broken.mp4", "cannot open"),
        ("camera:97", r"no such camera \(/dev/video97\)"),
        ("/dev/video98", r"no such camera \(/dev/video98\)"),
        ("http://127.0.0.1:1/", "connection refused by 127.0.0.1, port 1"),
        ("rtsp://me:secret@127.0.0.1:1/", r"rtsp://\*\*\*@127.0.0.1:1/: connection refused by 127.0.0.1, port 1"),
        ("http://nowhere.invalid/", "no such host: nowhere.invalid"),
        ("http://127.0.0.1:port/", "not an address"),
        ("http:///a", "names no host"),
    ],
)
def test_why_a_source_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match=message) as caught:
        Frames(source(text))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "user", "message"),
    [
        ("/missing", "", "it answers 404 Not Found"),
        ("/locked", "", "it answers 401 Unauthorized: write http://USER:PASSWORD@HOST"),
        ("/locked", "me:wrong@", "it answers 401 Unauthorized: check user and password"),
        ("/page", "", "it sends text/html, which is no video"),
        ("/nothing", "", "OpenCV cannot play what it sends"),
    ],
)
def test_what_a_host_answers_is_told(path: str, user: str, message: str) -> None:
    with Camera() as camera, pytest.raises(ImageError) as caught:
        Frames(source(f"http://{user}{camera.host}{path}"), timeout=5)
    assert message in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_an_rtsp_address_where_something_else_answers() -> None:
    with Camera() as camera, pytest.raises(ImageError, match="does not speak RTSP"):
        Frames(source(f"rtsp://{camera.host}/front"), timeout=5)


def test_a_user_and_password_are_given_to_the_camera() -> None:
    with Camera(frames=4) as camera, Frames(source(f"http://me:secret@{camera.host}/locked")) as frames:
        assert len(list(frames)) == 4


def test_a_pipeline_without_gstreamer_is_refused_with_the_way_on() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(ImageError, match=r"has no GStreamer.*python3-opencv"):
        Frames(source("videotestsrc ! appsink"))


def test_without_opencv_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImageError, match=r"mtl-deploy\[video\]"):
        Frames(source("camera:0"))
