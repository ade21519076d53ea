"""The border's nodes against Pillow, with OpenCV's or the runtime's conversion before it: equal to the bit, on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from mtl_deploy.export.graph.cost import border_multiply_adds, cost
from mtl_deploy.export.graph.sizes import at_size
from mtl_deploy.export.graph.source.frames import border_alone
from mtl_deploy.export.graph.source.resizing import needed
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.source import COLOURS, Source
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.images.camera import packed, unpacked
from mtl_deploy.runtime.images.seen import seen_pixels

LAYOUTS: tuple[Any, ...] = ("rgb", "bgr", "gray", "nv12", "yuyv")
FITS: tuple[dict[str, Any], ...] = (
    {},
    {"fit": "letterbox"},
    {"fit": "crop", "resize_to": (40,)},
    {"fit": "crop", "resize_to": (20,)},  # smaller than the crop: a black border
    {"fit": "crop", "resize_to": (36, 90)},
)


def taking(source: Source, channels: str = "rgb", **changes: Any) -> Preprocessing:
    mean = (0.4,) if channels == "gray" else (0.48, 0.45, 0.4)  # of three colours in a letterbox
    size = {"height": 32, "width": 32} | changes
    return Preprocessing(**size, mean=mean, std=(0.2,) * len(mean), channels=channels, source=source)


def run(preprocessing: Preprocessing, frames: np.ndarray) -> np.ndarray:
    """Return ``(N, height, width, C)`` in the order of the runtime's images."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = ir.to_proto(border_alone(preprocessing)).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(None, {"image": frames})[0]).transpose(0, 2, 3, 1)
    return found[..., ::-1] if preprocessing.order == "bgr" else found


def noise(count: int, of: Preprocessing) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *of.image_shape), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_fit_and_size_gives_the_pixels_of_the_runtime(layout: Any, interpolation: Any) -> None:
    for channels in ("bgr", "gray"):
        for fit in FITS:
            for size in ((64, 96), (30, 20)):
                of = taking(Source(*size, layout), channels, interpolation=interpolation, **fit)
                frames = noise(2, of)
                np.testing.assert_array_equal(
                    run(of, frames), seen_pixels(frames, of), err_msg=f"{channels} {fit} {size}"
                )


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["rgb", "bgr"])
def test_the_callers_order_and_the_networks_are_independent(layout: Any, channels: str) -> None:
    """Against Pillow alone: the first plane of a network of BGR is blue, whatever the frame holds first."""
    of = taking(Source(50, 70, layout), channels)
    frame = noise(1, of)
    colours = frame[0] if layout == "rgb" else np.ascontiguousarray(frame[0, ..., ::-1])
    expected = np.asarray(Image.fromarray(colours).resize((32, 32), Image.Resampling.BILINEAR))
    options = ir.to_proto(border_alone(of)).SerializeToString()
    planes = onnxruntime.InferenceSession(options, providers=["CPUExecutionProvider"]).run(None, {"image": frame})[0]
    blue = 0 if channels == "bgr" else 2
    np.testing.assert_array_equal(np.asarray(planes)[0, blue], expected[..., 2])
    np.testing.assert_array_equal(np.asarray(planes)[0, 2 - blue], expected[..., 0])


@pytest.mark.parametrize("target", [(224, 224), (48, 300), (500, 700)], ids=str)
def test_photographs_equal_opencvs_colours_resized_by_pillow_within_one_level(target: tuple[int, int]) -> None:
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for layout, code in (
        ("nv12", cv2.COLOR_YUV2RGB_NV12),
        ("yuyv", cv2.COLOR_YUV2RGB_YUY2),
        ("bgr", cv2.COLOR_BGR2RGB),
    ):
        of = taking(Source(426, 640, layout), height=target[0], width=target[1])
        assert of.source is not None
        frames = np.stack([packed(np.asarray(image.crop((0, 0, 640, 426))), of.source) for image in photographs])
        found = run(of, frames)
        for frame, pixels in zip(frames, found, strict=True):
            colours = Image.fromarray(cv2.cvtColor(frame, code))
            expected = np.asarray(colours.resize(target[::-1], Image.Resampling.BILINEAR), np.float32)
            assert np.abs(pixels - expected).max() <= (1 if of.source.colour else 0)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_matrix_and_range_converts_as_the_runtime_does(colour: Any) -> None:
    of = taking(Source(32, 32, "nv12", colour))
    assert of.source is not None
    frames = noise(4, of)
    np.testing.assert_array_equal(run(of, frames), np.stack([unpacked(frame, of.source) for frame in frames]))


def test_sums_of_the_widest_filter_are_exact() -> None:
    """8160 columns become 32: each pixel is made of 510, all of them white or black."""
    of = taking(Source(32, 8160, "gray"), "gray")
    frames = np.where(noise(2, of) > 60, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(run(of, frames), seen_pixels(frames, of))
    with pytest.raises(
        OptionError, match="16384 pixels of the source become 32: each is made of 1024, and a graph sums 512"
    ):
        border_alone(taking(Source(32, 16384, "gray"), "gray"))


def test_a_crop_converts_and_resizes_only_what_it_keeps() -> None:
    def work(**fit: Any) -> int:
        of = taking(Source(480, 640, "nv12"), **fit)
        counted = at_size(border_alone(of)).graph
        assert cost(counted).multiply_adds == 0  # no part of the network
        return border_multiply_adds(counted)

    whole, part = work(fit="crop", resize_to=(32, 43)), work(fit="crop", resize_to=(128, 172))
    assert needed(480, 128, "bilinear", slice(48, 80)) == slice(178, 302)
    dense = 3 * 32 * (480 * 640 + 640 * 32)
    assert part < whole
    assert work() < 2 * dense  # two products, each of a band


def test_bands_save_most_of_the_products() -> None:
    counted = at_size(border_alone(taking(Source(1080, 1920, "bgr"), height=224, width=224))).graph
    assert border_multiply_adds(counted) < 0.35 * 3 * 224 * (1080 * 1920 + 1920 * 224)
