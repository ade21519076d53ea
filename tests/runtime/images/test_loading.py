from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL import __version__ as PILLOW

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.loading import load_pixels, prepare
from mtl_deploy.runtime.images.resize import resize

PLAIN = Preprocessing(12, 10)
FLOAT = Preprocessing(12, 10, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), input="float")
RNG = np.random.default_rng(0)


def picture(height: int = 30, width: int = 20) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


sizes = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32 - 1), st.booleans())
def test_resizing_equals_pillows_within_a_level(
    height: int, width: int, to_height: int, to_width: int, seed: int, smooth: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if smooth:
        image = np.sort(image, axis=1)
    expected = np.asarray(Image.fromarray(image).resize((to_width, to_height), Image.Resampling.BILINEAR))
    found = resize(image, to_height, to_width)
    assert found.shape == (to_height, to_width, 3)
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).max() <= 1
    if to_height == height or to_width == width:
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes)
def test_along_one_axis_it_is_pillows_to_the_bit(height: int, width: int, target: int) -> None:
    image = picture(height, width)
    for shape in ((target, width), (height, target)):
        expected = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(resize(image, *shape), expected)


@settings(max_examples=80, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32 - 1), st.booleans())
def test_bicubic_is_pillows_along_each_axis_in_its_order(
    height: int, width: int, to_height: int, to_width: int, seed: int, smooth: bool
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if smooth:
        image = np.sort(image, axis=1)
    found = resize(image, to_height, to_width, "bicubic")
    first = (to_width, height)
    if to_height < height and height - to_height > 2 * (width - to_width):
        first = (width, to_height)
    passes = Image.fromarray(image).resize(first, Image.Resampling.BICUBIC)
    expected = np.asarray(passes.resize((to_width, to_height), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, expected)
    if int(PILLOW.partition(".")[0]) >= 13:
        for kind in ("bilinear", "bicubic"):
            whole = Image.fromarray(image).resize((to_width, to_height), Image.Resampling[kind.upper()])
            np.testing.assert_array_equal(resize(image, to_height, to_width, kind), np.asarray(whole))


@settings(max_examples=150, deadline=None)
@given(*[st.integers(1, 900)] * 2, *[st.integers(1, 300)] * 2)
def test_nearest_is_pillows_to_the_bit(height: int, width: int, to_height: int, to_width: int) -> None:
    rows, columns = np.arange(height)[:, None], np.arange(width)
    image = np.stack(np.broadcast_arrays(rows % 256, columns % 256, rows // 256 * 16 + columns // 256), axis=-1)
    expected = Image.fromarray(image.astype(np.uint8)).resize((to_width, to_height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize(image.astype(np.uint8), to_height, to_width, "nearest"), np.asarray(expected))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((720, 1280), (224, 224)),
        ((1080, 1920), (126, 224)),
        ((64, 48), (700, 900)),
        ((3, 40_000), (3, 7)),
        ((2, 70_000), (2, 3)),  # its weights are not kept
        ((40_000, 3), (900, 3)),
    ],
)
def test_frames_and_strips_are_resized_in_pieces_as_in_one(
    shape: tuple[int, int], target: tuple[int, int], kind: Any
) -> None:
    image = picture(*shape)
    passes = Image.fromarray(image)
    for width, height in ((target[1], shape[0]), (target[1], target[0])):  # Pillow 13's order for each of these
        passes = passes.resize((width, height), Image.Resampling[kind.upper()])
    np.testing.assert_array_equal(resize(image, *target, kind), np.asarray(passes))


def test_a_batch_of_the_right_size_is_passed_on_without_a_copy() -> None:
    batch = np.stack([picture(12, 10)] * 3)
    tensor, single = prepare(batch, PLAIN)
    assert not single
    assert np.shares_memory(tensor, batch)


def test_a_view_becomes_contiguous() -> None:
    batch = np.stack([picture(12, 10)] * 4)[::2]
    tensor, _ = prepare(batch, PLAIN)
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, batch)


def test_a_float_graph_gets_normalised_planes() -> None:
    image = picture(12, 10)
    tensor, single = prepare(image, FLOAT)
    expected = (image / 255 - np.array(FLOAT.mean)) / np.array(FLOAT.std)
    assert single
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), atol=1e-5)
    again, _ = prepare(tensor, FLOAT)
    assert np.shares_memory(again, tensor)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((12, 10, 2), np.uint8), r"got uint8 of shape \(12, 10, 2\); expected uint8 \(H, W, 3\), RGB"),
        (np.zeros((2, 12, 10, 5), np.uint8), r"\(2, 12, 10, 5\)"),
        (np.zeros((12, 10, 3)), r"got float64 of shape \(12, 10, 3\); expected uint8"),
        (np.zeros((0, 12, 10, 3), np.uint8), r"\(0, 12, 10, 3\)"),
        (np.zeros((1, 3, 12, 10), np.float32), "got float32"),
        ([], "empty list"),
        ([picture(), np.zeros((4, 4), np.int16)], r"got int16 of shape \(4, 4\)"),
        ([picture(), 7], "got int"),
        (7, "got int; an image is a path"),
        (b"bytes", "the encoded image: not an image in a supported format"),
        (np.zeros(12, np.uint8), r"got uint8 of shape \(12,\)"),
    ],
    ids=[
        "two-channels",
        "five-channels",
        "float",
        "no-images",
        "planes",
        "empty",
        "int16-in-list",
        "int-in-list",
        "int",
        "bytes",
        "vector",
    ],
)
def test_what_is_no_image_is_refused_naming_what_came_and_what_was_expected(value: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        prepare(value, PLAIN)


def test_a_float_graph_refuses_planes_of_another_size() -> None:
    with pytest.raises(ImageError, match=r"expected \(N, 3, 12, 10\), normalised"):
        prepare(np.zeros((1, 3, 5, 5), np.float32), FLOAT)


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(picture()).convert(mode)
    path = saved(tmp_path, image, "image.tiff")
    expected = np.asarray(image.convert("RGB").resize((10, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(load_pixels(path, Preprocessing(12, 10))[0], expected)
    np.testing.assert_array_equal(prepare(image, PLAIN)[0][0], expected)


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 120).astype(np.uint16).reshape(12, 10)
    path = saved(tmp_path, Image.fromarray(levels), "deep.png")
    found = load_pixels(path, Preprocessing(12, 10))[0]
    np.testing.assert_array_equal(found[..., 0], levels >> 8)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = Image.fromarray(picture(10, 12))
    path = saved(tmp_path, image, "turned.png", exif=exif)
    np.testing.assert_array_equal(
        load_pixels(path, Preprocessing(12, 10))[0], np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    )


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.fromarray(picture(64, 64)), "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.jpg").write_text("no image")
    for name, message in {
        "half.jpg": "cannot be read",
        "notes.jpg": "not an image",
        "absent.jpg": "No such file",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}.*{message}"):
            load_pixels(tmp_path / name, Preprocessing(12, 10))[0]


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(picture(64, 64)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"bomb\.png: larger than 1000 pixels"):
        load_pixels(path, Preprocessing(12, 10))[0]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        prepare(Image.fromarray(np.zeros((4, 4), np.float32)), PLAIN)
