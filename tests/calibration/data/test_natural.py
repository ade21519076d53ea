from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.calibration.data.synthetic import synthetic_images
from mtl_deploy.runtime.bundle.preprocessing import IMAGENET_MEAN, IMAGENET_STD

SIZE = 128


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return natural_images(32, SIZE, SIZE, seed=4)


def slope(images: np.ndarray) -> float:
    """Return the exponent that the power spectrum of pictures falls with."""
    grey = images.astype(np.float64).mean(axis=-1)
    window = np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    power = (np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE))
    rings = np.digitize(frequency, np.geomspace(2 / SIZE, 0.4, 12))
    points = [(frequency[rings == ring].mean(), power[rings == ring].mean()) for ring in range(1, 12)]
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0])


def test_the_power_spectrum_falls_as_that_of_photographs(pictures: np.ndarray) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = np.stack(
        [np.asarray(Image.fromarray(each).resize((SIZE, SIZE))) for each in load_sample_images().images]
    )
    assert slope(pictures) == pytest.approx(slope(photographs), abs=0.4)
    assert slope(synthetic_images(36, SIZE, SIZE, seed=0)[5::6]) > -0.5  # noise


def test_edges_are_sharp_and_most_places_smooth(pictures: np.ndarray) -> None:
    """Differences between neighbours have heavy tails, as in photographs; those of noise of the same spectrum have none."""
    steps = np.diff(pictures.astype(np.float64).mean(axis=-1), axis=2)
    assert (steps**4).mean() / (steps**2).mean() ** 2 > 5


def test_colours_have_imagenets_mean_and_deviation_and_vary_together(pictures: np.ndarray) -> None:
    values = pictures.reshape(-1, 3) / 255
    np.testing.assert_allclose(values.mean(axis=0), IMAGENET_MEAN, atol=0.04)
    np.testing.assert_allclose(values.std(axis=0), IMAGENET_STD, atol=0.03)
    correlation = np.corrcoef(values.T)
    assert correlation[0, 1] > 0.8
    assert correlation[1, 2] > 0.8
    assert 0.6 < correlation[0, 2] < 0.97


def test_the_first_pictures_are_the_same_whatever_the_count_and_differ_by_seed(pictures: np.ndarray) -> None:
    np.testing.assert_array_equal(natural_images(3, SIZE, SIZE, seed=4), pictures[:3])
    assert not np.array_equal(natural_images(3, SIZE, SIZE, seed=5), pictures[:3])
    assert len({picture.tobytes() for picture in pictures}) == 32


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (8, 8), (33, 640)], ids=str)
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    found = natural_images(4, *size, seed=0)
    assert found.shape == (4, *size, 3)
    assert found.dtype == np.uint8
    assert found.std() > 5


@pytest.mark.parametrize("draw", [natural_images, synthetic_images])
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_pictures_are_drawn_with_any_number_of_channels(draw: Callable[..., np.ndarray], channels: int) -> None:
    images = draw(6, 40, 32, seed=1, channels=channels)
    assert (images.shape, images.dtype) == ((6, 40, 32, channels), np.uint8)
    assert images.std(axis=(0, 1, 2)).min() > 20  # no channel is empty
    for channel in range(1, channels):  # and none a copy of another
        assert (images[..., channel] != images[..., channel - 1]).any()
    np.testing.assert_array_equal(images[:2], draw(2, 40, 32, seed=1, channels=channels))


def test_one_channel_is_the_luma_of_the_colour_picture() -> None:
    colours = natural_images(3, 24, 24, seed=5).astype(np.float64)
    luma = colours @ [0.299, 0.587, 0.114]
    assert np.abs(natural_images(3, 24, 24, seed=5, channels=1)[..., 0] - luma).max() <= 1


def test_further_channels_show_the_same_shapes() -> None:
    images = natural_images(8, 64, 64, seed=2, channels=6).astype(np.float64)
    steps = np.abs(np.diff(images, axis=1)).transpose(3, 0, 1, 2).reshape(6, -1)
    others = np.roll(steps[3], steps.shape[1] // 8)  # of the next picture
    assert np.corrcoef(steps[0], steps[3])[0, 1] > 0.1 > 0.05 > np.corrcoef(steps[0], others)[0, 1]
