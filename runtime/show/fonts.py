"""Pillow, where it is installed, and its font."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.errors import ImageError

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_of(size: int) -> Font:
    """Return a font of this size in pixels."""
    _, _, fonts = pillow()
    try:
        font: Font = fonts.load_default(size)
    except (ImportError, OSError):  # Pillow was built without FreeType: its one small font
        font = fonts.load_default()
    return font


def pillow() -> tuple[Any, Any, Any]:
    """Return Pillow's ``Image``, ``ImageDraw`` and ``ImageFont``.

    Raises:
        ImageError: it is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise ImageError("drawing predictions needs Pillow: pip install 'mtl-deploy[images]'") from None
    return Image, ImageDraw, ImageFont
