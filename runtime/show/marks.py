"""Marks on a picture: boxes, points, lines and tinted pixels, given in the pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.predictions.drawing import Box, Line, Mark, Pixels, Point, Tint

from .fonts import font_of, pillow

if TYPE_CHECKING:
    from PIL import Image

    Picture = Image.Image

STRENGTH = 0.5  # share of a tint's colour over the image


def tinted(image: Pixels, marks: Sequence[Mark]) -> Pixels:
    """Return the image ``(H, W, 3) uint8`` with the tints among the marks."""
    found = image
    for mark in marks:
        if isinstance(mark, Tint):
            colour = np.array(mark.colour, np.float64)
            found = found.copy() if found is image else found
            found[mark.mask] = np.round(STRENGTH * colour + (1 - STRENGTH) * found[mark.mask]).astype(np.uint8)
    return found


def with_marks(picture: Picture, marks: Sequence[Mark], scale: float, unit: int) -> Picture:
    """Draw marks into a picture, in place, and return it.

    Args:
        picture: of the image, ``scale`` times as large.
        marks: in the image's pixels; tints are left to :func:`tinted`.
        scale: pixels of the picture per pixel of the image.
        unit: height of text in pixels; lines and dots are a fraction of it.
    """
    if not any(not isinstance(mark, Tint) for mark in marks):
        return picture
    _, drawing, _ = pillow()
    draw, font = drawing.Draw(picture), font_of(max(round(0.8 * unit), 8))
    line, dot = max(2, unit // 7), max(2, unit // 5)
    for mark in marks:
        if isinstance(mark, Box):
            corners = [scale * side for side in (mark.left, mark.top, mark.right, mark.bottom)]
            if np.isfinite(corners).all() and corners[2] >= corners[0] and corners[3] >= corners[1]:
                draw.rectangle(corners, outline=mark.colour, width=line)
                _text(draw, font, corners[0], corners[1] - unit, mark.text, mark.colour)
        elif isinstance(mark, Point) and np.isfinite([mark.x, mark.y]).all():
            x, y = scale * mark.x, scale * mark.y
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=mark.colour)
            _text(draw, font, x + dot, y - unit, mark.text, mark.colour)
        elif isinstance(mark, Line) and np.isfinite([*mark.start, *mark.end]).all():
            draw.line([scale * end for end in (*mark.start, *mark.end)], fill=mark.colour, width=line)
    return picture


def _text(draw: Any, font: Any, left: float, top: float, text: str, colour: tuple[int, int, int]) -> None:
    """Write a few words on a ground of their colour, black or white, whichever can be read."""
    if not (text := visible(text)):
        return
    place = max(left, 0.0), max(top, 0.0)
    draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128
    draw.text(place, text, fill=(0, 0, 0) if light else (255, 255, 255), font=font)
