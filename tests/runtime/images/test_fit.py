"""Where images go in a network's input, and what is around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import load_pixels, prepare, prepare_all
from mtl_deploy.runtime.images.resize import resize
from mtl_deploy.runtime.predictions.sampling import Sampling

SIDES = st.integers(1, 700)
STEPS = st.sampled_from([1, 4, 32])
FITS: Any = st.sampled_from(["stretch", "letterbox"])
RNG = np.random.default_rng(0)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_letterbox_keeps_the_aspect_and_is_centred(height: int, width: int, high: int, wide: int) -> None:
    placement = place(height, width, Preprocessing(high, wide, fit="letterbox"))
    top, left, inner_height, inner_width = placement.box
    assert placement.input == (high, wide)
    assert inner_height == high or inner_width == wide
    assert 1 <= inner_height <= high
    assert 1 <= inner_width <= wide
    factor = min(high / height, wide / width)
    assert abs(inner_height - height * factor) <= max(0.5, 1 - height * factor) + 1e-9
    assert abs(inner_width - width * factor) <= max(0.5, 1 - width * factor) + 1e-9
    assert 0 <= high - inner_height - 2 * top <= 1
    assert 0 <= wide - inner_width - 2 * left <= 1
    assert placement.bordered == ((inner_height, inner_width) != (high, wide))


@given(SIDES, SIDES, STEPS, FITS)
def test_free_sizes_are_multiples_near_the_images_own(height: int, width: int, step: int, fit: Any) -> None:
    placement = place(height, width, Preprocessing(step, step, fit=fit, multiple=step))
    for own, found in zip((height, width), placement.input, strict=True):
        assert found % step == 0
        assert found >= step
        assert abs(found - own) <= max(step / 2 if fit == "stretch" else step - 1, step - own)
    if fit == "letterbox":
        assert placement.box[2:] == (height, width)
        assert placement.scale == (1, 1)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 15), st.integers(1, 15), FITS, st.sampled_from([1, 4]))
def test_what_lies_at_a_place_comes_back_to_it(
    height: int, width: int, rows: int, columns: int, fit: Any, stride: int
) -> None:
    """A map of the image's own coordinates, drawn where the image lies in the input, comes back as coordinates."""
    high, wide = rows * 4, columns * 4
    placement = place(height, width, Preprocessing(high, wide, fit=fit))
    sampling = Sampling((high // stride, wide // stride), placement)
    top, left, inner_height, inner_width = placement.box
    ys = ((np.arange(high // stride) + 0.5) * stride - top) * height / inner_height
    xs = ((np.arange(wide // stride) + 0.5) * stride - left) * width / inner_width
    vertical = np.broadcast_to(ys[:, None], (high // stride, wide // stride)).astype(np.float32)
    horizontal = np.broadcast_to(xs, (high // stride, wide // stride)).astype(np.float32)
    own_y, own_x = np.arange(height) + 0.5, np.arange(width) + 0.5
    cell_y, cell_x = stride * height / inner_height, stride * width / inner_width  # of the grid, in the image's pixels
    inside_y = (own_y >= cell_y) & (own_y <= height - cell_y)  # beyond these the outermost value holds
    inside_x = (own_x >= cell_x) & (own_x <= width - cell_x)
    found = sampling.bilinear(vertical)
    assert found.shape == (height, width)
    np.testing.assert_allclose(found[inside_y, 0], own_y[inside_y], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sampling.bilinear(horizontal)[0, inside_x], own_x[inside_x], rtol=1e-3, atol=1e-3)
    nearest = sampling.nearest(np.arange(high // stride * (wide // stride)).reshape(high // stride, wide // stride))
    assert nearest.shape == (height, width)
    assert abs(ys[nearest[:, 0] // (wide // stride)] - own_y).max() <= cell_y / 2 + 1e-6
    assert abs(xs[nearest[0] % (wide // stride)] - own_x).max() <= cell_x / 2 + 1e-6


def test_the_border_has_the_mean_colour(tmp_path: Path) -> None:
    from PIL import Image

    preprocessing = Preprocessing(40, 40, mean=(0.5, 0.25, 1.0), fit="letterbox")
    image = RNG.integers(0, 256, (10, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    for given_image in (image, Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png")):
        pixels, placement = load_pixels(given_image, preprocessing)
        top, left, height, width = placement.box
        assert (top, left, height, width) == (13, 0, 13, 40)
        assert placement.original == (10, 30)
        inside = np.zeros((40, 40), bool)
        inside[top : top + height, left : left + width] = True
        assert (pixels[~inside] == (128, 64, 255)).all()
        inner = pixels[inside].reshape(height, width, 3).astype(int)
        assert abs(inner - resize(image, height, width)).max() <= 1


def test_a_rotated_photo_is_placed_upright(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.zeros((20, 60, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert prepare_all(tmp_path / "a.jpg", Preprocessing(40, 40)).placements[0].original == (60, 20)


def test_images_of_one_size_are_a_batch() -> None:
    images = [np.zeros((*size, 3), np.uint8) for size in [(64, 64), (32, 70), (60, 66), (64, 64)]]
    prepared = prepare_all(images, Preprocessing(32, 32, multiple=32))
    assert [(tensor.shape, positions) for tensor, positions in prepared.batches] == [
        ((3, 64, 64, 3), (0, 2, 3)),
        ((1, 32, 64, 3), (1,)),
    ]
    assert [placement.original for placement in prepared.placements] == [image.shape[:2] for image in images]


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_an_image_of_the_networks_size_is_not_copied(fit: Any) -> None:
    for preprocessing in (Preprocessing(32, 64, fit=fit), Preprocessing(32, 32, fit=fit, multiple=32)):
        image = np.zeros((32, 64, 3), np.uint8)
        assert np.shares_memory(prepare(image, preprocessing)[0], image)
        assert np.shares_memory(prepare(image[None], preprocessing)[0], image)
