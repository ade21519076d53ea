"""Images are found, drawn, resized as the runtime does, and bad ones named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.images import batches, find_images, load_images, synthetic_images
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.loading import load_pixels

SIZE = Preprocessing(height=8, width=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images over three folders, a text file and a hidden one."""
    for i, pixels in enumerate(synthetic_images(10, 20, 30, seed=0)):
        path = tmp_path / ("a", "b/c", ".")[i % 3] / f"{i}.{('png', 'JPG', 'bmp')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "thumb.png").write_bytes(b"")
    return tmp_path


def test_a_folder_is_searched_in_order(folder: Path) -> None:
    found = [str(path.relative_to(folder)) for path in find_images(folder)]
    assert found == sorted(found)
    assert len(found) == 10
    assert {"a/0.png", "b/c/1.JPG", "2.bmp"} < set(found)


def test_a_list_is_read_in_its_order(folder: Path) -> None:
    listing = folder / "listing.txt"
    listing.write_text(f"# mine\nb/c/1.JPG\n\n{folder / 'a' / '0.png'}\n")
    loaded = load_images(listing, SIZE)
    assert loaded.paths == (folder / "b/c/1.JPG", folder / "a/0.png")
    assert loaded.array.shape == (2, 8, 12, 3)


def test_images_are_those_that_the_runtime_reads(folder: Path) -> None:
    loaded = load_images(folder, SIZE)
    assert (loaded.array.dtype, loaded.skipped) == (np.uint8, {})
    for pixels, path in zip(loaded.array, loaded.paths, strict=True):
        np.testing.assert_array_equal(pixels, load_pixels(path, Preprocessing(8, 12))[0])


def test_a_sample_follows_its_seed(folder: Path) -> None:
    draws = [load_images(folder, SIZE, samples=4, seed=seed).paths for seed in (1, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1
    assert all(list(paths) == sorted(paths) and len(paths) == 4 for paths in draws)
    assert len(load_images(folder, SIZE, samples=99).paths) == 10


def test_bad_images_are_named_and_replaced(folder: Path) -> None:
    (folder / "a" / "3.png").write_bytes(b"not an image")
    good = (folder / "b/c/1.JPG").read_bytes()
    (folder / "b/c/1.JPG").write_bytes(good[: len(good) // 2])
    loaded = load_images(folder, SIZE, samples=8)
    assert len(loaded.array) == 8
    assert loaded.skipped.keys() == {folder / "a/3.png", folder / "b/c/1.JPG"}
    assert loaded.skipped[folder / "a/3.png"] == (
        "not an image in a supported format (BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)"
    )
    assert "cannot be read" in loaded.skipped[folder / "b/c/1.JPG"]


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"none of the images \(1\) can be read; .*a\.png: not an image"):
        load_images(tmp_path, SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff\xd8\xff\xe0", "not a text file"), (b"# nothing\n", "lists no image")],
    ids=["missing", "binary", "empty"],
)
def test_what_is_no_source_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        find_images(source)


def test_a_list_may_quote_its_paths_as_windows_copies_them(folder: Path) -> None:
    (folder / "list.txt").write_text('"a\\3.png"\n"a/0.png"\na/6.png\n"none.png"\n"\n')
    assert find_images(folder / "list.txt")[:4] == [
        folder / name for name in ("a/3.png", "a/0.png", "a/6.png", "none.png")
    ]


@pytest.mark.skipif(os.name == "nt", reason="an absolute path there")
@pytest.mark.parametrize("line", [r"C:\photos\1.jpg", r'"\\server\photos\1.jpg"'])
def test_a_list_of_absolute_paths_of_windows_is_refused_with_the_way_on(folder: Path, line: str) -> None:
    (folder / "list.txt").write_text(f"{line}\n")
    with pytest.raises(ImageError, match=r"1\.jpg' is an absolute path of Windows; write paths relative to this list"):
        find_images(folder / "list.txt")
    (folder / "list.txt").write_text(f"{line}\na/0.png\n")
    loaded = load_images(folder / "list.txt", SIZE)  # one line of many is an image that cannot be read
    assert (loaded.paths, len(loaded.skipped)) == ((folder / "a/0.png",), 1)


def test_a_name_with_quotes_of_its_own_is_that_files(folder: Path) -> None:
    (folder / "a" / "0.png").rename(folder / "a" / '"0.png"')
    (folder / "a" / "list.txt").write_text('"0.png"\n')
    assert find_images(folder / "a" / "list.txt") == [folder / "a" / '"0.png"']


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image in this folder"):
        find_images(tmp_path)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_batches_are_the_graphs_input(kind: str) -> None:
    preprocessing = Preprocessing(height=8, width=12, input=kind)
    images = synthetic_images(5, 8, 12, seed=0)
    pieces = list(batches(images, preprocessing, 2))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    together = np.concatenate(pieces)
    if kind == "uint8":
        np.testing.assert_array_equal(together, images)
    else:
        expected = (images / 255 - preprocessing.mean) / preprocessing.std
        np.testing.assert_allclose(together, expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64)], ids=str)
def test_generated_images_are_varied_and_repeatable(size: tuple[int, int]) -> None:
    images = synthetic_images(24, *size, seed=5)
    assert (images.shape, images.dtype) == ((24, *size, 3), np.uint8)
    np.testing.assert_array_equal(images[:7], synthetic_images(7, *size, seed=5))
    assert len(np.unique(images.reshape(24, -1), axis=0)) == 24
    assert not np.array_equal(images, synthetic_images(24, *size, seed=6))


def test_generated_images_cover_flat_and_busy_and_the_range_of_colours() -> None:
    images = synthetic_images(24, 64, 64, seed=0).astype(float)
    spread = images.std(axis=(1, 2)).max(axis=1)
    assert spread.min() == 0
    assert spread.max() > 60
    assert images.min() < 10
    assert images.max() > 245


def test_reading_images_needs_no_graph_library() -> None:
    code = "import mtl_deploy.calibration.data.images, sys; assert not {'onnx', 'onnxruntime', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
