"""Colours: told apart, evenly graded, and the usual code for normals."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.runtime.show.colours import of_classes, of_normals, of_numbers, palette


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("classes", [1, 2, 8, 19, 40, 150])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    colours = palette(classes)
    assert colours.shape == (classes, 3)
    assert len({tuple(colour) for colour in colours}) == classes
    np.testing.assert_array_equal(colours[:8], palette(8)[:classes])
    apart = np.abs(np.diff(colours.astype(int), axis=0)).sum(axis=1)
    assert classes == 1 or apart.min() > 60  # neighbours differ


def test_class_indices_become_their_colours_and_unknown_ones_black() -> None:
    picture = of_classes(np.array([[0, 1, 255]], np.uint8), 2)
    np.testing.assert_array_equal(picture[0], [*palette(2), [0, 0, 0]])


def test_numbers_grow_evenly_in_lightness() -> None:
    ramp = of_numbers(np.linspace(2.0, 5.0, 300, dtype=np.float32)[None], 2.0, 5.0)[0]
    steps = np.diff(lightness(ramp[::10]))
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.mean()


def test_numbers_out_of_the_scale_take_its_ends_and_none_is_black() -> None:
    row = of_numbers(np.array([[-9.0, 0.0, 1.0, 9.0, np.nan, np.inf]], np.float32), 0.0, 1.0)[0]
    np.testing.assert_array_equal(row[0], row[1])
    np.testing.assert_array_equal(row[2], row[3])
    assert not row[4:].any()
    assert of_numbers(np.ones((1, 1), np.float32), 1.0, 1.0).shape == (1, 1, 3)


def test_normals_have_the_usual_code() -> None:
    normals = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]]], np.float32)
    np.testing.assert_array_equal(
        of_normals(normals)[0], [[255, 128, 128], [128, 255, 128], [128, 128, 255], [128, 128, 0]]
    )
