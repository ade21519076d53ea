"""Colours for maps: a palette for classes, a colour map for numbers, the usual code for normals."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]

_OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (112, 112, 112),
)
"""Okabe, Ito: Color Universal Design, 2008: distinguishable with any colour vision; grey replaces its black."""
_GOLDEN = 0.61803398875
_VIRIDIS = (
    (68, 1, 84),
    (72, 26, 108),
    (71, 47, 125),
    (65, 68, 135),
    (57, 86, 140),
    (49, 104, 142),
    (42, 120, 142),
    (35, 136, 142),
    (31, 152, 139),
    (34, 168, 132),
    (53, 183, 121),
    (84, 197, 104),
    (122, 209, 81),
    (165, 219, 54),
    (210, 226, 27),
    (253, 231, 37),
)
"""Sixteen of viridis' colours at equal steps (S. van der Walt, N. Smith, matplotlib 1.5, CC0): its lightness increases evenly."""


@lru_cache(maxsize=32)
def palette(classes: int) -> Pixels:
    """Return one colour per class, ``(classes, 3) uint8``, RGB; the same number of classes always gets the same colours.

    Up to eight are Okabe and Ito's. More follow with hues a golden section of the circle apart, with alternating lightness and
    saturation, in Oklab (B. Ottosson: A perceptual color space for image processing, 2020), so that neighbours differ.
    """
    found = [np.array(colour, np.float64) for colour in _OKABE_ITO[:classes]]
    for number in range(len(found), classes):
        hue = 2 * np.pi * ((number * _GOLDEN) % 1)
        lightness = (0.52, 0.72, 0.86)[number % 3]
        strength = (0.15, 0.11)[number // 3 % 2]
        found.append(_srgb(lightness, strength * np.cos(hue), strength * np.sin(hue)))
    colours = np.round(np.array(found)).astype(np.uint8).reshape(classes, 3)
    colours.flags.writeable = False
    return colours


def _srgb(lightness: float, a: float, b: float) -> npt.NDArray[np.float64]:
    """Turn one Oklab colour into sRGB from 0 to 255, clipped to what a screen can show."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    ).clip(0, 1)
    curved: npt.NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curved


def of_classes(indices: npt.NDArray[np.integer], classes: int) -> Pixels:
    """Return the picture ``(H, W, 3) uint8`` of class indices ``(H, W)``; an index without a class is black."""
    colours = np.concatenate([palette(classes), np.zeros((1, 3), np.uint8)])
    known = (indices >= 0) & (indices < classes)
    picture: Pixels = colours[np.where(known, indices, classes)]
    return picture


def of_numbers(values: Floats, low: float, high: float) -> Pixels:
    """Return the picture ``(H, W, 3) uint8`` of numbers ``(H, W)``: dark at ``low``, bright at ``high``, black for none."""
    finite = np.isfinite(values)
    span = high - low if high > low else 1.0
    place = np.where(finite, np.clip((np.where(finite, values, low).astype(np.float64) - low) / span, 0, 1), 0.0)
    picture: Pixels = _steps()[np.round(255 * place).astype(np.intp)]
    picture[~finite] = 0
    return picture


@lru_cache(maxsize=1)
def _steps() -> Pixels:
    anchors = np.array(_VIRIDIS, np.float64)
    at = np.linspace(0, 1, 256)
    channels = [np.interp(at, np.linspace(0, 1, len(anchors)), anchors[:, channel]) for channel in range(3)]
    steps: Pixels = np.round(np.stack(channels, axis=1)).astype(np.uint8)
    return steps


def of_normals(normals: Floats) -> Pixels:
    """Return the picture ``(H, W, 3) uint8`` of unit normals ``(H, W, 3)``: -1 to 1 of x, y and z become 0 to 255 of R, G and B."""
    picture: Pixels = np.round(255 * (np.clip(np.nan_to_num(normals), -1, 1) + 1) / 2).astype(np.uint8)
    return picture


def value_range(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return the ends of a scale for ``values``: their 1st and 99th percentile, so that single pixels do not set it."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.percentile(finite.astype(np.float64), [1, 99]))
    around = max(0.5, 1e-6 * abs(low))
    return (low, high) if high - low > 1e-9 * abs(low) else (low - around, high + around)
