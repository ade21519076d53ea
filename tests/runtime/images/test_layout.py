"""Arrays in the caller's layout, with alpha, gray or 16 bits, as memoryviews, and encoded images."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images import array_resize
from mtl_deploy.runtime.images.layout import layout_of
from mtl_deploy.runtime.images.loading import load_pixels, prepare, prepare_all
from mtl_deploy.runtime.images.parallel import each

RNG = np.random.default_rng(4)
MEAN, STD = (0.1, 0.4, 0.7), (0.2, 0.25, 0.5)  # of R, G and B


def frame(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def taking(order: str, form: str = "uint8", **options: Any) -> Preprocessing:
    turned = slice(None, None, -1 if order == "bgr" else 1)
    return Preprocessing(12, 10, MEAN[turned], STD[turned], form, channels=order, **options)  # type: ignore[arg-type]


GRAY = Preprocessing(12, 10, (0.5,), (0.25,))


@pytest.mark.parametrize("shape", [(30, 20, 3), (12, 10, 3), (4, 30, 20, 3), (4, 12, 10, 3)], ids=str)
@pytest.mark.parametrize("form", ["uint8", "float"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["rgb", "bgr"])
def test_layout_and_the_networks_order_are_independent(
    layout: Any, order: str, form: str, shape: tuple[int, ...]
) -> None:
    colours = frame(*shape)
    given = colours if layout == "rgb" else np.ascontiguousarray(colours[..., ::-1])
    found, _ = prepare(given, taking(order, form), layout)
    images = list(colours) if colours.ndim == 4 else [colours]
    small = np.stack([np.asarray(Image.fromarray(one).resize((10, 12), Image.Resampling.BILINEAR)) for one in images])
    if form == "uint8":
        np.testing.assert_array_equal(found, small)  # RGB: the graph swaps
        return
    planes = (small / 255 - np.array(MEAN)) / np.array(STD)
    planes = planes[..., ::-1] if order == "bgr" else planes
    np.testing.assert_allclose(found, planes.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("layout", ["rgb", "bgr"])
@pytest.mark.parametrize("mode", ["L", "LA1", "RGBA"])
def test_gray_is_tripled_and_alpha_dropped_as_in_files(mode: str, layout: Any, fit: Any, tmp_path: Path) -> None:
    options = {"resize_to": (14,)} if fit == "crop" else {}
    preprocessing = taking("rgb", fit=fit, **options)
    given = {"L": frame(30, 20), "LA1": frame(30, 20, 1), "RGBA": frame(30, 20, 4)}[mode]
    shown = given[..., 0] if mode == "LA1" else given
    if mode == "RGBA":
        shown = shown[..., [2, 1, 0, 3]] if layout == "bgr" else shown
    Image.fromarray(shown).save(tmp_path / "picture.png")
    expected, placement = load_pixels(tmp_path / "picture.png", preprocessing)
    found, same = load_pixels(given, preprocessing, layout)
    np.testing.assert_array_equal(found, expected)
    assert same == placement
    np.testing.assert_array_equal(prepare([given, given], preprocessing, layout)[0], np.stack([expected] * 2))


@pytest.mark.parametrize("layout", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_network_of_gray_gets_pillows_l_of_colours(channels: int, layout: Any) -> None:
    given = frame(64, 50, channels)
    colours = given[..., [2, 1, 0]] if layout == "bgr" else given[..., :3]
    expected = Image.fromarray(np.ascontiguousarray(colours)).convert("L")
    np.testing.assert_array_equal(load_pixels(given, GRAY, layout)[0], load_pixels(expected, GRAY)[0])
    batch = np.stack([given[:12, :10]] * 2)
    np.testing.assert_array_equal(prepare(batch, GRAY, layout)[0][1, ..., 0], np.asarray(expected)[:12, :10])


def test_every_colour_has_pillows_luma() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(86, -1, 3)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    for blue_first in (False, True):
        given = colours[..., ::-1] if blue_first else colours
        places = (2, 1, 0) if blue_first else (0, 1, 2)
        np.testing.assert_array_equal(array_resize.luma(given, places)[..., 0], expected)
        np.testing.assert_array_equal(array_resize.luma(given[None], places)[0, ..., 0], expected)  # by numpy


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 1), (30, 20, 3), (30, 20, 4), (2, 12, 10, 3)], ids=str)
def test_16_bits_are_scaled_to_8(shape: tuple[int, ...]) -> None:
    deep = frame(*shape, dtype=np.uint16)
    for preprocessing in (taking("rgb"), GRAY):
        expected, _ = prepare((deep >> 8).astype(np.uint8), preprocessing)
        np.testing.assert_array_equal(prepare(deep, preprocessing)[0], expected)
        np.testing.assert_array_equal(prepare(deep.astype(">u2"), preprocessing)[0], expected)
    if len(shape) == 2:
        np.testing.assert_array_equal(prepare(deep, GRAY)[0], prepare(Image.fromarray(deep), GRAY)[0])


def test_other_networks_take_16_bits_and_their_own_channels_only() -> None:
    six = Preprocessing(12, 10, (0.5,) * 6, (0.25,) * 6)
    deep = frame(30, 20, 6, dtype=np.uint16)
    np.testing.assert_array_equal(prepare(deep, six)[0], prepare((deep >> 8).astype(np.uint8), six)[0])
    with pytest.raises(ImageError, match=r"expected uint8 \(H, W, 6\) \(layout bgr is for networks of colours or gray"):
        prepare(deep, six, "bgr")
    first, second = frame(30, 20, 3), frame(30, 20, 3)
    expected, _ = prepare([(first, second)], six)
    np.testing.assert_array_equal(prepare([(first[..., ::-1], second[..., ::-1])], six, "bgr")[0], expected)


@pytest.mark.parametrize("given", [frame(30, 20, 3), frame(2, 12, 10, 4)], ids=["colours", "batch"])
def test_layout_gray_is_of_one_channel(given: np.ndarray) -> None:
    for preprocessing in (taking("rgb"), GRAY):
        with pytest.raises(ImageError, match=r"1\), gray; layout gray is of one channel: say rgb or bgr$"):
            prepare(given, preprocessing, "gray")
    plane = frame(30, 20)
    for preprocessing in (taking("rgb"), GRAY):
        np.testing.assert_array_equal(prepare(plane, preprocessing, "gray")[0], prepare(plane, preprocessing)[0])


def test_a_layout_has_a_name() -> None:
    assert layout_of("BGR") == "bgr"
    for wrong in ("rbg", "nv12", "", None):
        with pytest.raises(OptionError, match="choose rgb, bgr, gray"):
            layout_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 3), (2, 12, 10, 3)], ids=str)
def test_a_memoryview_is_the_array_that_it_views(shape: tuple[int, ...], dtype: Any) -> None:
    array = frame(*shape, dtype=dtype)
    expected, single = prepare(array, taking("rgb"), "bgr")
    found, same = prepare(memoryview(array), taking("rgb"), "bgr")
    np.testing.assert_array_equal(found, expected)
    assert same == single
    with pytest.raises(ImageError, match="got float64"):
        prepare(memoryview(array.astype(float)), taking("rgb"))
    ready = frame(12, 10, 3)
    assert np.shares_memory(prepare(memoryview(ready), taking("rgb"))[0], ready)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_encoded_images_are_decoded_as_files_are(wrap: Any, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    stream = io.BytesIO()
    Image.fromarray(frame(30, 20, 3)).save(stream, kind, **({} if kind == "BMP" else {"exif": exif}))
    (tmp_path / "picture").write_bytes(stream.getvalue())
    for preprocessing in (taking("rgb"), GRAY):
        expected, placement = load_pixels(tmp_path / "picture", preprocessing)
        found = prepare_all(wrap(stream.getvalue()), preprocessing, "bgr")  # the layout is of arrays
        assert found.single
        assert found.placements == (placement,)
        np.testing.assert_array_equal(found.batches[0][0][0], expected)
        several, _ = prepare([wrap(stream.getvalue()), tmp_path / "picture"], preprocessing)
        np.testing.assert_array_equal(several, np.stack([expected] * 2))


def test_a_damaged_encoded_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.fromarray(frame(64, 64, 3)).save(stream, "JPEG")
    whole = stream.getvalue()
    for content, message in {
        b"": "not an image",
        whole[: len(whole) // 2]: "cannot be read",
        b"%!PS-": "not an image",
    }.items():
        with pytest.raises(ImageError, match=f"the encoded image: {message}"):
            prepare(content, taking("rgb"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="the encoded image: larger than 1000 pixels"):
        prepare(whole, taking("rgb"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 9), st.sampled_from(["bilinear", "bicubic", "nearest"]))
def test_arrays_have_pillows_pixels_whatever_their_channels(height: int, width: int, channels: int, kind: Any) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    planes = [
        np.asarray(Image.fromarray(image[..., channel]).resize((10, 12), Image.Resampling[kind.upper()]))
        for channel in range(channels)
    ]
    found = array_resize.resize_array(image[:, ::-1][:, ::-1], 12, 10, kind)
    np.testing.assert_array_equal(found, np.stack(planes, axis=-1))


def test_without_pillow_arrays_are_resized_all_the_same() -> None:
    """In an interpreter where Pillow cannot be imported."""
    code = """
import sys
sys.modules["PIL"] = None
import numpy as np
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.loading import prepare
image = np.random.default_rng(0).integers(0, 256, (90, 40, 4), dtype=np.uint8)
sys.stdout.buffer.write(prepare([image, image[:50]], Preprocessing(12, 10), "bgr")[0].tobytes())
try:
    prepare(b"bytes", Preprocessing())
except ImageError as error:
    assert "needs Pillow" in str(error)
else:
    sys.exit("decoded without Pillow")
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    image = np.random.default_rng(0).integers(0, 256, (90, 40, 4), dtype=np.uint8)
    expected, _ = prepare([image, image[:50]], Preprocessing(12, 10), "bgr")
    apart = np.frombuffer(found, np.uint8).reshape(expected.shape).astype(int) - expected
    assert np.abs(apart).max() <= 1  # releases of Pillow before 13 have another order of the axes


def test_several_images_are_worked_on_in_threads_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl_deploy.runtime.images.parallel._cores", lambda: 2)
    met = threading.Barrier(2, timeout=30)  # two at a time, or it breaks

    def work(index: int) -> int:
        met.wait()
        return index * index

    assert each(work, 6) == [0, 1, 4, 9, 16, 25]
    images = [frame(30 + index, 20, 3) for index in range(7)]
    found, _ = prepare(images, taking("rgb"))
    for image, pixels in zip(images, found, strict=True):
        np.testing.assert_array_equal(pixels, load_pixels(image, taking("rgb"))[0])


def test_the_first_wrong_image_is_the_error() -> None:
    images: list[Any] = [frame(30, 20, 3), np.zeros((3, 3), np.int8), np.zeros((4, 4), np.int16), "absent.png"]
    for _ in range(5):
        with pytest.raises(ImageError, match="got int8"):
            prepare(images, taking("rgb"))


def test_one_picture_given_several_times_is_decoded_once(tmp_path: Path) -> None:
    Image.fromarray(frame(300, 200, 3)).save(tmp_path / "picture.png")
    expected, _ = load_pixels(tmp_path / "picture.png", taking("rgb"))
    for _ in range(10):
        with Image.open(tmp_path / "picture.png") as picture:
            found, _ = prepare([picture] * 8, taking("rgb"))
        np.testing.assert_array_equal(found, np.stack([expected] * 8))


def test_an_array_on_the_gpu_is_not_reordered(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnDevice:
        __cuda_array_interface__ = {"shape": (1, 12, 10, 3), "typestr": "|u1", "data": (256, False), "version": 3}  # noqa: RUF012
        shape = (1, 12, 10, 3)

    assert prepare_all(OnDevice(), taking("rgb")).batches[0][0].shape == (1, 12, 10, 3)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="reorder it to RGB"):
        prepare_all(OnDevice(), taking("rgb"), "bgr")  # type: ignore[arg-type]


class OneByOne(Sequence[np.ndarray]):
    """Makes its images as they are read, which only its own thread may do."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images
        self.readers: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.readers.append(threading.get_ident())
        return self.images[index]


def test_an_applications_own_sequence_is_read_once_in_its_own_thread() -> None:
    images = [frame(30 + index, 20, 3) for index in range(5)]
    own = OneByOne(images)
    found, single = prepare(own, taking("rgb"))  # type: ignore[arg-type]
    assert not single
    np.testing.assert_array_equal(found, prepare(images, taking("rgb"))[0])
    assert own.readers == [threading.get_ident()] * 5
