"""SVG as PNG, where cairosvg is installed (https://cairosvg.org): Cairo draws it, so it needs that library too."""

from __future__ import annotations

import struct
import zlib

from mtl_deploy.runtime.errors import OptionError

DPI = 300
_INCH = 0.0254  # m
_HEADER = 33  # bytes of a PNG's signature and of its first chunk, after which the resolution stands


def missing() -> str | None:
    """Return why no PNG can be made here; None where one can be."""
    try:
        import cairosvg  # noqa: F401
    except ImportError:
        return "cairosvg is not installed; pip install 'mtl-deploy[figures]'"
    except OSError as error:  # it is, and Cairo is not
        return f"cairosvg finds no Cairo ({str(error).splitlines()[0]}); install libcairo2"
    return None


def png(svg: str) -> bytes:
    """Return a drawing at 300 dpi; the file says so, so that a text processor sets it at its size in millimetres.

    Args:
        svg: with a width and a height in millimetres.

    Raises:
        OptionError: see :func:`missing`.
    """
    if (reason := missing()) is not None:
        raise OptionError(reason)
    import cairosvg

    drawn: bytes = cairosvg.svg2png(bytestring=svg.encode(), dpi=DPI)
    return drawn[:_HEADER] + _resolution() + drawn[_HEADER:]


def _resolution() -> bytes:
    """Return the chunk pHYs: pixels per metre (Portable Network Graphics Specification, 11.3.4.3)."""
    chunk = b"pHYs" + struct.pack(">IIB", *[round(DPI / _INCH)] * 2, 1)
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
