"""Frames of a camera: unpacked as OpenCV does it, made of pictures, refused with the way on, and mapped back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.source import COLOURS, Source
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images import array_resize
from mtl_deploy.runtime.images.camera import packed, settled_layout, to_colours, unpacked
from mtl_deploy.runtime.images.crops import prepare_boxes
from mtl_deploy.runtime.images.loading import original_pixels, prepare_all
from mtl_deploy.runtime.images.seen import seen_pixels

CODES = {"nv12": cv2.COLOR_YUV2RGB_NV12, "yuyv": cv2.COLOR_YUV2RGB_YUY2}
LAYOUTS: tuple[Any, ...] = ("rgb", "bgr", "gray", "nv12", "yuyv")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture of strong colours, ``(height, width, 3) uint8``."""
    return np.asarray(Image.fromarray(noise(4, 6, 3)).resize((width, height), Image.Resampling.BICUBIC))


def taking(source: Source, **changes: Any) -> Preprocessing:
    return Preprocessing(**({"height": 32, "width": 32, "source": source} | changes))


@pytest.mark.parametrize("layout", CODES)
def test_luma_and_chroma_become_the_colours_of_opencv(layout: Any) -> None:
    source = Source(64, 96, layout)
    frame = noise(*source.shape)
    off = np.abs(unpacked(frame, source).astype(int) - cv2.cvtColor(frame, CODES[layout]))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


@pytest.mark.parametrize("colour", COLOURS)
def test_each_matrix_and_range_takes_black_white_and_primaries_where_the_standard_has_them(colour: Any) -> None:
    """ITU-R BT.601-7 and BT.709-6: luma's weights of red and blue, and the limits of the narrow range."""
    red, blue = (0.299, 0.114) if colour.startswith("bt601") else (0.2126, 0.0722)
    low, span, swing = (0, 255, 255) if colour.endswith("full") else (16, 219, 224)
    for rgb in ([0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 140, 200]):
        r, g, b = (value / 255 for value in rgb)
        y = red * r + (1 - red - blue) * g + blue * b
        u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
        values = np.rint([low + span * y, 128 + swing * u, 128 + swing * v]).clip(0, 255).astype(np.uint8)
        frame = np.array([[values[0], values[0]], [values[0], values[0]], values[1:]], np.uint8)
        found = unpacked(frame, Source(2, 2, "nv12", colour))
        assert np.abs(found.astype(int) - rgb).max() <= 2, (rgb, found[0, 0])


def test_every_sum_of_a_conversion_is_exact_in_float32() -> None:
    for colour in COLOURS:
        of = to_colours(colour)
        for pair in of.chroma:
            assert 255 * of.luma + 128 * sum(map(abs, pair)) + (1 << 13) < 2**24


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_becomes_a_frame_that_shows_it(layout: Any) -> None:
    source = Source(96, 128, layout)
    colours = picture(96, 128)
    shown = colours if layout != "gray" else np.asarray(Image.fromarray(colours).convert("L"))[..., None]
    prepared = prepare_all(Image.fromarray(colours), taking(source))
    (frame,) = prepared.batches[0][0]
    assert frame.shape == source.shape
    np.testing.assert_array_equal(frame, packed(shown, source))
    off = np.abs(unpacked(frame, source).astype(int) - shown)
    assert off.mean() < (2 if source.colour else 1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_go_to_the_graph_as_they_are(layout: Any) -> None:
    source = Source(48, 64, layout)
    batch = noise(3, *source.shape)
    prepared = prepare_all(batch, taking(source))
    assert prepared.batches[0][0] is batch or np.shares_memory(prepared.batches[0][0], batch)
    assert not prepared.single
    for one in (batch[0], memoryview(batch[0]), batch[0].reshape(-1)):
        single = prepare_all(one, taking(source))
        assert single.single
        np.testing.assert_array_equal(single.batches[0][0], batch[:1])
    several = prepare_all([batch[0], Image.fromarray(picture(10, 20))], taking(source))
    assert several.batches[0][0].shape == (2, *source.shape)


class OnGpu:
    """What an array on a GPU shows of itself."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": (4096, False), "version": 3}


def test_frames_on_the_gpu_stay_there() -> None:
    of = taking(Source(96, 160, "nv12"), fit="letterbox")
    frames = OnGpu(2, 144, 160)
    prepared = prepare_all(frames, of)  # type: ignore[arg-type]
    assert prepared.batches[0][0] is frames
    assert prepared.placements == prepare_all(noise(2, 144, 160), of).placements
    with pytest.raises(
        ImageError, match=r"on the GPU; this graph takes frames of 96x160 in nv12.*The shape is that of rgb"
    ):
        prepare_all(OnGpu(2, 96, 160, 3), of)  # type: ignore[arg-type]


def test_gray_may_lack_its_last_dimension() -> None:
    of = taking(Source(6, 8, "gray"))
    batch = noise(3, 6, 8)
    np.testing.assert_array_equal(prepare_all(batch, of).batches[0][0], batch[..., None])
    assert prepare_all(batch[0], of).single


@pytest.mark.parametrize("fit", [{}, {"fit": "letterbox"}, {"fit": "crop", "resize_to": (40,)}], ids=str)
def test_results_are_mapped_to_the_frame_and_to_the_picture_that_became_one(fit: dict[str, Any]) -> None:
    of = taking(Source(48, 80, "nv12"), **fit)
    placed = prepare_all(noise(2, 72, 80), of).placements
    assert placed == prepare_all([noise(48, 80, 3)] * 2, of.seen).placements
    (spot,) = prepare_all(Image.fromarray(picture(96, 40)), of).placements
    assert spot.original == (96, 40)
    assert spot.box == placed[0].box


@pytest.mark.parametrize(
    ("shape", "way"),
    [
        (
            (480, 640, 3),
            "The shape is that of 480x640 in rgb or bgr: set the camera to what the graph takes, or export",
        ),
        (
            (96, 160, 3),
            "The shape is that of rgb or bgr: have the camera give nv12, or export with --layout rgb or bgr",
        ),
        ((72, 64), "The frame is 48x64: set the camera to 96x160, resize it, or export with --source 48x64"),
        ((3, 4, 5, 6), "Set the camera to that, or pass a PIL image, which becomes such a frame"),
        ((0, 160), "Set the camera to that"),
    ],
)
def test_other_frames_are_refused_with_the_way_on(shape: tuple[int, ...], way: str) -> None:
    of = taking(Source(96, 160, "nv12"))
    with pytest.raises(ImageError) as caught:
        prepare_all(np.zeros(shape, np.uint8), of)
    said = str(caught.value)
    assert "this graph takes frames of 96x160 in nv12 (bt601): uint8 (144, 160) or a batch (N, 144, 160)" in said
    assert way in said


def test_what_is_no_single_frame_of_bytes_is_refused() -> None:
    of = taking(Source(96, 160, "nv12"))
    with pytest.raises(ImageError, match=r"got uint16 of shape .*Give the camera's bytes as they are"):
        prepare_all(np.zeros((144, 160), np.uint16), of)
    with pytest.raises(ImageError, match="got a tuple of 2 images as one input"):
        prepare_all([(np.zeros((144, 160), np.uint8),) * 2], of)
    with pytest.raises(ImageError, match="got an empty batch"):
        prepare_all(np.zeros((0, 144, 160), np.uint8), of)
    with pytest.raises(ImageError, match="got boxes, and this graph takes frames of 96x160"):
        prepare_boxes(np.zeros((144, 160), np.uint8), [(0, 0, 8, 8)], 0.0, of)


def test_an_array_file_is_a_frame_and_is_shown_in_its_colours(tmp_path: Any) -> None:
    of = taking(Source(48, 64, "yuyv"))
    frame = noise(48, 64, 2)
    np.save(tmp_path / "frame.npy", frame)
    np.testing.assert_array_equal(prepare_all(tmp_path / "frame.npy", of).batches[0][0][0], frame)
    assert of.source is not None
    np.testing.assert_array_equal(original_pixels(tmp_path / "frame.npy", of), unpacked(frame, of.source))
    np.save(tmp_path / "other.npy", noise(48, 64, 3))
    with pytest.raises(ImageError, match=r"other.npy: got uint8 of shape \(48, 64, 3\)"):
        prepare_all(tmp_path / "other.npy", of)


def test_a_layout_that_the_graph_does_not_take_is_an_error_that_says_both() -> None:
    of = taking(Source(48, 64, "nv12"))
    assert settled_layout(None, of) == settled_layout("NV12", of) == "nv12"
    with pytest.raises(OptionError, match="layout 'rgb', but this graph takes frames of 48x64 in nv12"):
        settled_layout("rgb", of)
    with pytest.raises(OptionError, match="layout 'nv12': this graph takes images of colours or gray"):
        settled_layout("nv12", of.seen)
    with pytest.raises(OptionError, match="layout 'nv21': choose rgb, bgr, gray, nv12, yuyv"):
        settled_layout("nv21", of)
    assert settled_layout(None, of.seen) == "rgb"


@pytest.mark.parametrize(("layout", "channels"), [(a, b) for a in ("rgb", "bgr") for b in ("rgb", "bgr", "gray")])
def test_what_the_network_sees_is_what_pillow_makes_of_the_frame(layout: Any, channels: str) -> None:
    """Images stay R, G, B for a network of BGR, which swaps them itself."""
    count = 1 if channels == "gray" else 3
    of = taking(Source(50, 70, layout), mean=(0.5,) * count, std=(0.5,) * count, channels=channels)
    colours = noise(50, 70, 3)
    frame = colours if layout == "rgb" else np.ascontiguousarray(colours[..., ::-1])
    whole = Image.fromarray(colours).convert("L" if count == 1 else "RGB")
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).reshape(32, 32, count)
    np.testing.assert_array_equal(seen_pixels(frame[None], of)[0], expected)


def test_the_order_of_the_axes_is_that_of_the_installed_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "__version__", "13.0.0")
    assert array_resize.rows_first((1000, 100), (100, 90))
    assert not array_resize.rows_first((1000, 1000), (100, 100))
    monkeypatch.setattr(Image, "__version__", "12.3.1")
    assert not array_resize.rows_first((1000, 100), (100, 90))
