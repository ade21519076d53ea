"""From a camera's buffer to planes of colours, as nodes: exact in float32, the bits of the runtime's own conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.source import Source
from mtl_deploy.runtime.images.array_resize import HALF, LUMA
from mtl_deploy.runtime.images.camera import MIDDLE, POINT, to_colours

from .steps import Steps

if TYPE_CHECKING:
    import onnx_ir as ir


def planes(steps: Steps, image: ir.Value, preprocessing: Preprocessing, rows: slice, columns: slice) -> ir.Value:
    """Return planes ``(N, C, rows, columns) float32`` of a part of each frame, 0 to 255.

    Args:
        steps: get the nodes.
        image: frames of the source's shape.
        preprocessing: with the source. Colours come in the network's order; for a network of gray one plane, the luma. A frame of
            gray gives one plane whatever the network takes.
        rows: of the frame; even ends where pixels share their chroma.
        columns: likewise.
    """
    source = preprocessing.source
    assert source is not None  # the caller has looked
    floats = steps.add("Cast", "cast", image, to=1)
    if source.colour is None:
        part = _part(steps, "part", _part(steps, "rows", floats, 1, rows, source.height), 2, columns, source.width)
        found = steps.add("Transpose", "planes", part, perm=[0, 3, 1, 2])
        if source.layout == "gray":
            return found
        order = "rgb" if source.layout == "rgb" else "bgr"
    else:
        order = "bgr" if preprocessing.order == "bgr" else "rgb"
        found = _converted(steps, floats, source, order, rows, columns)
    if preprocessing.channel_count == 1:
        return _luma(steps, found, order)
    if order != preprocessing.order:
        return steps.add("Gather", "order", found, steps.constant("order/places", [2, 1, 0]), axis=1)
    return found


def _part(steps: Steps, word: str, value: ir.Value, axis: int, part: slice, size: int) -> ir.Value:
    return value if part == slice(0, size) else steps.cut(word, value, axis, part.start, part.stop)


def _luma(steps: Steps, colours: ir.Value, order: str) -> ir.Value:
    """Return Pillow's ``L``; the sums are below 2**24, so float32 holds them."""
    weights = np.array(LUMA if order == "rgb" else LUMA[::-1], np.float64).reshape(1, 3, 1, 1)
    weighted = steps.add("Mul", "luma/weighted", colours, steps.constant("luma/weights", weights))
    total = steps.add("ReduceSum", "luma/sum", weighted, steps.constant("luma/axis", [1]), keepdims=1)
    rounded = steps.add("Add", "luma/half", total, steps.constant("luma/one_half", float(HALF)))
    shifted = steps.add("Mul", "luma/shift", rounded, steps.constant("luma/unit", 2.0**-16))
    return steps.add("Floor", "luma/floor", shifted)


def _converted(steps: Steps, floats: ir.Value, source: Source, order: str, rows: slice, columns: slice) -> ir.Value:
    """Convert luma and chroma to colours in some order: chroma at its own size, then each value for its pixels."""
    assert source.colour is not None  # the caller has looked
    of = to_colours(source.colour)
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    if source.layout == "nv12":
        first = source.height + rows.start // 2
        luma = steps.cut("luma_rows", floats, 1, rows.start, rows.stop)
        luma = _part(steps, "luma_part", luma, 2, columns, source.width)
        pairs = steps.cut("chroma_rows", floats, 1, first, first + high // 2)
        pairs = _part(steps, "chroma_part", pairs, 2, columns, source.width)
        pairs = steps.shaped("pairs", pairs, high // 2, wide // 2, 2)
        scales = [1.0, 1.0, 2.0, 2.0]
    else:
        part = _part(steps, "part", _part(steps, "rows", floats, 1, rows, source.height), 2, columns, source.width)
        luma = steps.cut("luma", part, 3, 0, 1)
        pairs = steps.shaped("pairs", steps.cut("chroma", part, 3, 1, 2), high, wide // 2, 2)
        scales = [1.0, 1.0, 1.0, 2.0]
    luma = steps.shaped("luma_plane", luma, 1, high, wide)
    if of.black:
        luma = steps.add("Sub", "from_black", luma, steps.constant("black", float(of.black)))
        luma = steps.add("Relu", "not_darker", luma)
    luma = steps.add("Mul", "bright", luma, steps.constant("bright/factor", float(of.luma)))
    chroma = of.chroma if order == "rgb" else of.chroma[::-1]
    centred = steps.add("Sub", "centred", pairs, steps.constant("middle", float(MIDDLE)))
    total = None
    for number, word in ((1, "v"), (0, "u")):
        plane = steps.shaped(
            word, steps.cut(f"{word}_of", centred, 3, number, number + 1), 1, high // int(scales[2]), wide // 2
        )
        factors = np.array([pair[1 - number] for pair in chroma], np.float64).reshape(1, 3, 1, 1)
        share = steps.add("Mul", f"{word}_share", plane, steps.constant(f"{word}_factors", factors))
        total = share if total is None else steps.add("Add", "shares", total, share)
    assert total is not None  # there are two
    total = steps.add("Add", "half", total, steps.constant("one_half", float(1 << POINT - 1)))
    spread = steps.add(
        "Resize",
        "nearest",
        total,
        None,
        steps.constant("nearest/scales", scales),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    colours = steps.add("Add", "colours", luma, spread)
    return steps.whole("pixels", steps.add("Mul", "unit", colours, steps.constant("unit/size", 2.0**-POINT)))
