"""From frames of a camera to the network's pixels, as nodes: what the runtime does on a processor, for a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.images.array_resize import rows_first
from mtl_deploy.runtime.images.fit import place

from .colours import planes
from .resizing import needed, resized
from .steps import Steps

if TYPE_CHECKING:
    import onnx_ir as ir


def network_pixels(steps: Steps, image: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Return the network's pixels ``(N, C, height, width) float32``, whole numbers from 0 to 255, in its order of channels.

    Only what a crop leaves is converted and resized, and the axes are resized in the order of the installed Pillow, which is that
    of less work since its release 13.

    Args:
        steps: get the nodes.
        image: ``(N, *preprocessing.source.shape) uint8``.
        preprocessing: with a source.

    Raises:
        OptionError: a pixel would be made of too many.
    """
    source = preprocessing.source
    assert source is not None  # the caller has looked
    spot = place(source.height, source.width, preprocessing)
    top, left, *inner = spot.box
    sizes, targets, offsets = (source.height, source.width), (inner[0], inner[1]), (top, left)
    parts = [_inside(offset, side, whole) for offset, side, whole in zip(offsets, targets, spot.input, strict=True)]
    how = preprocessing.interpolation
    held = [needed(sizes[axis], targets[axis], how, parts[axis]) for axis in (0, 1)]
    if source.colour is not None:  # pixels share their chroma
        held = [slice(side.start // 2 * 2, -(-side.stop // 2) * 2) for side in held]
        if source.layout == "yuyv":
            held[0] = slice(held[0].start, min(held[0].stop, source.height))
    found = planes(steps, image, preprocessing, held[0], held[1])
    for place_of in (0, 1) if rows_first(sizes, targets) else (1, 0):
        axis, size, target = place_of + 2, sizes[place_of], targets[place_of]
        found = resized(steps, found, axis, size, target, parts[place_of], held[place_of], how)
    if source.layout == "gray" and preprocessing.channel_count == 3:
        found = steps.add("Concat", "tripled", found, found, found, axis=1)
    edges = [max(offset, 0) for offset in offsets]
    behind = [
        whole - edge - (part.stop - part.start) for whole, edge, part in zip(spot.input, edges, parts, strict=True)
    ]
    return _bordered(steps, found, preprocessing, [*edges, *behind])


def border_alone(preprocessing: Preprocessing, opset: int = 17) -> ir.Model:
    """Return a graph of nothing but :func:`network_pixels`, from ``image`` to ``pixels``, to measure and to check it."""
    import onnx_ir as ir

    def value(name: str, kind: ir.DataType, *sides: int) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(["batch", *sides]), type=ir.TensorType(kind))

    image = value("image", ir.DataType.UINT8, *preprocessing.image_shape)
    model = ir.Model(ir.Graph([image], [], nodes=[], opset_imports={"": opset}, name="border"), ir_version=8)
    steps = Steps(model)
    pixels = network_pixels(steps, image, preprocessing)
    shaped = value("pixels", ir.DataType.FLOAT, preprocessing.channel_count, preprocessing.height, preprocessing.width)
    model.graph.extend([*steps.nodes, ir.node("Identity", [pixels], outputs=[shaped])])
    model.graph.outputs.append(shaped)
    return model


def _inside(offset: int, side: int, whole: int) -> slice:
    """Return the pixels of a resized frame that lie inside the network's input, along one axis."""
    return slice(max(-offset, 0), min(side, whole - offset))


def _bordered(steps: Steps, found: ir.Value, preprocessing: Preprocessing, widths: list[int]) -> ir.Value:
    """Put a border of the fill's colour around the pixels: above, left, below, right. A Pad has one value for all channels."""
    if not any(widths):
        return found
    colour = preprocessing.fill[::-1] if preprocessing.order == "bgr" else preprocessing.fill
    fill = steps.constant("border/colour", np.array(colour, np.float64).reshape(1, -1, 1, 1)) if any(colour) else None
    if fill is not None:
        found = steps.add("Sub", "border/from_colour", found, fill)
    above, left, below, right = widths
    found = steps.add(
        "Pad", "border/pad", found, steps.constant("border/widths", [0, 0, above, left, 0, 0, below, right])
    )
    return found if fill is None else steps.add("Add", "border/to_colour", found, fill)
