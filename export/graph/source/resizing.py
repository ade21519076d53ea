"""Pillow's antialiased resizing as matrix products, to the bit.

Pillow resizes one axis, rounds to 8 bits, then resizes the other (``src/libImaging/Resample.c``). Its weights are integers over
2**22, and their sums with pixels have 30 bits, more than a float32 holds. So each matrix is the sum of two: its weights rounded to
:data:`COARSE` bits, and what is left. Either product is exact in float32, in whatever order a device adds, and both together
round as Pillow's integers do. (With TF32 nothing is exact; then pixels may differ by one level.)

A target pixel is made of few source pixels, so that the matrix is 0 but for a band along its diagonal. It is cut into a few
products along that band.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.bundle.preprocessing import Interpolation
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.images.resize import band, nearest_pixels

from .steps import Steps

if TYPE_CHECKING:
    import onnx_ir as ir

COARSE = 15
"""Bits of the coarse weights: their sums with pixels are integers below 2**24, over this power of two."""
_TERMS = 512  # source pixels of one target pixel, up to which the sums of the fine weights are exact too
_PRODUCTS = 8  # per axis, at most: more would save little and cost a launch each
_FEWEST = 16  # target pixels of one product, about


def needed(size: int, target: int, interpolation: Interpolation, part: slice) -> slice:
    """Return the source pixels along an axis that some target pixels are made of."""
    if size == target:
        return part
    if interpolation == "nearest":
        places = nearest_pixels(size, target)[part]
        return slice(int(places.min()), int(places.max()) + 1)
    return band(size, target, interpolation, part).source


def resized(
    steps: Steps,
    value: ir.Value,
    axis: int,
    size: int,
    target: int,
    part: slice,
    held: slice,
    interpolation: Interpolation,
) -> ir.Value:
    """Resize planes ``(N, C, H, W) float32`` of whole numbers along one axis.

    Args:
        steps: get the nodes.
        value: the planes.
        axis: 2 or 3.
        size: of the whole frame along it.
        target: of the whole resized frame.
        part: the target pixels that are wanted.
        held: the source pixels that the planes hold.
        interpolation: as Pillow has it.

    Raises:
        OptionError: a target pixel is made of too many source pixels.
    """
    word = "down" if axis == 2 else "across"
    if size == target:
        wanted = slice(part.start - held.start, part.stop - held.start)
        return value if part == held else steps.cut(f"{word}/part", value, axis, wanted.start, wanted.stop)
    if interpolation == "nearest":
        places = nearest_pixels(size, target)[part] - held.start
        return steps.add("Gather", f"{word}/nearest", value, steps.constant(f"{word}/places", places), axis=axis)
    coarse: list[ir.Value] = []
    fine: list[ir.Value] = []
    for number, piece in enumerate(_pieces(part)):
        weights = band(size, target, interpolation, piece)
        if (terms := int((weights.weights != 0).sum(axis=1).max())) > _TERMS:
            raise OptionError(
                f"{size} pixels of the source become {target}: each is made of {terms}, and a graph sums {_TERMS} at most; use a "
                "smaller source"
            )
        first, stop = weights.source.start - held.start, weights.source.stop - held.start
        whole = (first, stop) == (0, held.stop - held.start)
        rows = value if whole else steps.cut(f"{word}/cut{number}", value, axis, first, stop)
        rough = np.rint(weights.weights * 2**COARSE) / 2**COARSE
        for found, name, matrix in ((coarse, "coarse", rough), (fine, "fine", weights.weights - rough)):
            held_by = steps.constant(f"{word}/{name}{number}/weights", matrix if axis == 2 else matrix.T)
            pair = (held_by, rows) if axis == 2 else (rows, held_by)
            found.append(steps.add("MatMul", f"{word}/{name}{number}", *pair))
    if len(coarse) > 1:
        coarse = [steps.add("Concat", f"{word}/coarse", *coarse, axis=axis)]
        fine = [steps.add("Concat", f"{word}/fine", *fine, axis=axis)]
    return _rounded(steps, word, coarse[0], fine[0])


def _pieces(part: slice) -> list[slice]:
    """Cut target pixels into those of one product each."""
    count = part.stop - part.start
    products = max(1, min(_PRODUCTS, count // _FEWEST))
    ends = [part.start + count * number // products for number in range(products + 1)]
    return [slice(first, stop) for first, stop in pairwise(ends)]


def _rounded(steps: Steps, word: str, coarse: ir.Value, fine: ir.Value) -> ir.Value:
    """Round the sum of two products to 8 bits: the fine one is added to what the coarse one has behind its point."""
    half = steps.add("Add", f"{word}/half", coarse, steps.constant(f"{word}/one_half", 0.5))
    floor = steps.add("Floor", f"{word}/floor", half)
    rest = steps.add("Add", f"{word}/rest", steps.add("Sub", f"{word}/behind", half, floor), fine)
    return steps.whole(
        f"{word}/pixels", steps.add("Add", f"{word}/sum", floor, steps.add("Floor", f"{word}/carry", rest))
    )
