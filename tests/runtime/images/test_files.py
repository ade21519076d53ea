"""Image files that are damaged, huge, of another format, or no files."""

from __future__ import annotations

import os
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.images import load_images
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.files import FORMATS, MOST_BYTES, label_pixels
from mtl_deploy.runtime.images.loading import load_pixels, original_pixels

SIZE = Preprocessing(8, 8)
PICTURE = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint16).astype(np.uint8).reshape(20, 30, 3))


@pytest.mark.parametrize("name", FORMATS)
def test_the_listed_formats_are_read_whatever_a_file_is_called(name: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "image.png", format=name)
    assert original_pixels(tmp_path / "image.png").shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["EPS", "DDS", "ICO", "PCX", "SGI", "TGA", "PDF"])
def test_other_formats_are_not_opened(name: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "image.png", format=name)
    for read in (original_pixels, label_pixels, lambda path: load_pixels(path, SIZE)):
        with pytest.raises(ImageError, match=r"image\.png: not an image in a supported format \(BMP, GIF"):
            read(tmp_path / "image.png")


def test_ghostscript_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    (bin_folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    assert shutil.which("gs") == str(bin_folder / "gs")
    PICTURE.save(tmp_path / "image.jpg", format="EPS")
    with pytest.raises(ImageError):
        original_pixels(tmp_path / "image.jpg")
    assert not (tmp_path / "started").exists()


def with_tag_of_another_type(file: Path) -> None:
    """Let a TIFF's StripOffsets be text: Pillow then raises a TypeError."""
    PICTURE.save(file, format="TIFF")
    data = bytearray(file.read_bytes())
    (start,) = struct.unpack("<I", data[4:8])
    for entry in range(struct.unpack("<H", data[start : start + 2])[0]):
        place = start + 2 + 12 * entry
        if struct.unpack("<H", data[place : place + 2])[0] == 273:
            data[place + 2 : place + 4] = struct.pack("<H", 2)
    file.write_bytes(data)
    with pytest.raises(TypeError), Image.open(file) as opened:
        opened.load()


def test_whatever_pillow_raises_is_the_images_error(tmp_path: Path) -> None:
    with_tag_of_another_type(tmp_path / "odd.tiff")
    with pytest.raises(ImageError, match=r"odd\.tiff: cannot be read"):
        load_pixels(tmp_path / "odd.tiff", SIZE)
    with pytest.raises(ImageError, match="the image: cannot be read"):
        load_pixels(Image.open(tmp_path / "odd.tiff"), SIZE)
    PICTURE.save(tmp_path / "fine.png")
    found = load_images(tmp_path, SIZE)
    assert [path.name for path in found.paths] == ["fine.png"]
    assert "cannot be read" in found.skipped[tmp_path / "odd.tiff"]


def test_pipes_and_devices_are_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    PICTURE.save(tmp_path / "fine.png")
    (tmp_path / "folder.png").mkdir()
    found = load_images(tmp_path, SIZE)
    assert [path.name for path in found.paths] == ["fine.png"]
    assert {path.name for path in found.skipped} == {"pipe.png", "link.png"}
    assert all("Not a regular file" in reason for reason in found.skipped.values())


def test_files_and_pixels_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PICTURE.save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(ImageError, match=r"image\.png: larger than 599 pixels"):
        original_pixels(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert original_pixels(tmp_path / "image.png").shape == (20, 30, 3)
    with (tmp_path / "image.png").open("ab") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(ImageError, match="larger than 1024 MiB"):
        original_pixels(tmp_path / "image.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_bound_of_pixels_holds_in_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PICTURE.save(tmp_path / "large.png")
    PICTURE.resize((5, 5)).save(tmp_path / "small.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow itself refuses from twice as many
    passed: list[str] = []

    def work() -> None:
        for _ in range(200):
            original_pixels(tmp_path / "small.png")
            try:
                original_pixels(tmp_path / "large.png")
                passed.append("large.png")
            except ImageError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == []
