from __future__ import annotations

from pathlib import Path

import pytest

from mtl_deploy.runtime import OptionError
from mtl_deploy.runtime.live.raw import raw_format
from mtl_deploy.runtime.live.sources import source_of, told_apart
from tests.clips import source


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ("-", "pipe", "stdin"),
        ("camera:0", "camera", "camera:0"),
        ("/dev/video0", "camera", "/dev/video0"),
        ("/dev/v4l/by-id/usb-Cam-index0", "camera", "/dev/v4l/by-id/usb-Cam-index0"),
        ("rtsp://me:secret@host/front", "url", "rtsp://***@host/front"),
        ("HTTP://host/a.jpg", "url", "HTTP://host/a.jpg"),
        ("v4l2src ! appsink", "pipeline", "v4l2src ! appsink"),
        ("a/b.MP4", "file", "a/b.MP4"),
        ("face.jpg", None, ""),
        ("photos", None, ""),
        ("rtsp:/host/face.png", None, ""),
    ],
)
def test_what_is_named_by_its_form(text: str, kind: str | None, label: str) -> None:
    found = source_of(text)
    assert (found and found.kind, found.label if found else "") == (kind, label)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("camera:first", "such as camera:0"),
        ("camera:", "such as camera:0"),
        ("ftp://host/a.mp4", "addresses begin with http"),
    ],
)
def test_what_looks_like_a_source_and_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        source_of(text)


def test_what_is_there_is_a_file_whatever_it_is_called_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rtsp:/host/a.png", "rtsp:/host/a.mp4", "me ! you.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert source_of("rtsp://host/a.png") is None
    assert source_of("me ! you.png") is None
    assert source("rtsp://host/a.mp4").kind == "file"
    assert source("rtsp://host/b.mp4").kind == "url"


def test_labels_differ_and_only_live_sources_go_together() -> None:
    cameras = [source(f"rtsp://{user}@host/a") for user in ("one", "two")]
    assert [one.label for one in told_apart([*cameras, source("camera:0")])] == [
        "rtsp://***@host/a #1",
        "rtsp://***@host/a #2",
        "camera:0",
    ]
    with pytest.raises(OptionError, match="name it once"):
        told_apart([source("-"), source("-")])
    with pytest.raises(OptionError, match=r"a\.mp4: pass a video file by itself"):
        told_apart([source("a.mp4"), source("camera:0")])


@pytest.mark.parametrize(
    ("text", "size", "shape"),
    [
        ("4x2:bgr", 24, (2, 4, 3)),
        ("4x2:RGB", 24, (2, 4, 3)),
        ("4x2:gray", 8, (2, 4)),
        ("4x2:nv12", 12, (3, 4)),
        ("4x3:yuyv", 24, (3, 4, 2)),
    ],
)
def test_sizes_of_raw_frames(text: str, size: int, shape: tuple[int, ...]) -> None:
    form = raw_format(text)
    assert (form.size, form.shape, str(form)) == (size, shape, text.lower())


@pytest.mark.parametrize(
    "text", ["4x2", "4x2:hsv", "0x2:bgr", "4x2:bgr:", "4x-2:bgr", "5x2:nv12", "4x3:nv12", "5x2:yuyv", "99999x99999:bgr"]
)
def test_what_is_no_raw_format_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--raw "):
        raw_format(text)
