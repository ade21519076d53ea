"""Which input of a given graph is the image, and how it lies in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from mtl_deploy.runtime.errors import CheckpointError
from mtl_deploy.runtime.files.reading import shown

_CHANNELS = (3, 1, 4, 6)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

Size = int | None


@dataclass(frozen=True)
class Entry:
    """The input of a given graph.

    Attributes:
        name: its name in the graph.
        pixels: it takes ``uint8`` pixels from 0 to 255, so the graph normalises them itself; otherwise floats.
        last: channels come last, ``(N, H, W, C)``; otherwise ``(N, C, H, W)``.
        sizes: N, C, H and W in this order, whatever the layout; None for each that is free.
    """

    name: str
    pixels: bool
    last: bool
    sizes: tuple[Size, Size, Size, Size]

    @property
    def description(self) -> str:
        """For people, as ``(any, 3, 224, 224) float``."""
        sizes = ["any" if size is None else str(size) for size in self.sizes]
        ordered = [sizes[0], *sizes[2:], sizes[1]] if self.last else sizes
        return f"({', '.join(ordered)}) {'uint8' if self.pixels else 'float'}"

    @property
    def dtype(self) -> type[np.generic]:
        """Of the array that the graph is run with."""
        return np.uint8 if self.pixels else np.float32


def find_entry(model: onnx.ModelProto, where: str) -> Entry:
    """Return the graph's image.

    Args:
        model: its initializers are no inputs any more.
        where: how errors call the file.

    Raises:
        CheckpointError: there is no image, or another input beside it, which nothing here can fill.
    """
    inputs = list(model.graph.input)
    images = [value for value in inputs if len(_sizes(value)) == 4]
    listed = ", ".join(f"{shown(value.name)} {_described(value)}" for value in inputs) or "none"
    if not images:
        raise CheckpointError(
            f"{where}: no input of this graph is a batch of images (N, 3, H, W); its inputs: {listed}"
        )
    if len(inputs) > 1:
        others = ", ".join(f"{shown(v.name)} {_described(v)}" for v in inputs if v is not images[0])
        raise CheckpointError(
            f"{where}: the graph takes {len(inputs)} inputs, {listed}; {shown(images[0].name)} is an image, but nothing gives it "
            f"{others}: export it again with these as constants, so that one batch of images is all that it takes"
        )
    image = images[0]
    kind = image.type.tensor_type.elem_type
    if kind not in (*_FLOATS, TensorProto.UINT8):
        raise CheckpointError(
            f"{where}: input {shown(image.name)} is {_described(image)}; export the graph again with a float32 or uint8 input"
        )
    sizes = _sizes(image)
    last = _is_last(model, image.name, sizes)
    ordered = (sizes[0], sizes[3], sizes[1], sizes[2]) if last else (sizes[0], sizes[1], sizes[2], sizes[3])
    return Entry(image.name, kind == TensorProto.UINT8, last, ordered)


def _is_last(model: onnx.ModelProto, name: str, sizes: list[Size]) -> bool:
    first, last = sizes[1] in _CHANNELS, sizes[3] in _CHANNELS
    if first != last:
        return last
    readers = [node for node in model.graph.node if name in node.input]
    turned = [a.ints for node in readers if node.op_type == "Transpose" for a in node.attribute if a.name == "perm"]
    return any(list(perm) == [0, 3, 1, 2] for perm in turned)


def _sizes(value: onnx.ValueInfoProto) -> list[Size]:
    shape = value.type.tensor_type.shape
    return [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in shape.dim]


def _described(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return "(no tensor)"
    kinds = {number: name.lower() for name, number in TensorProto.DataType.items()}
    sizes = ", ".join(
        str(side.dim_value) if side.dim_value > 0 else side.dim_param or "any" for side in tensor.shape.dim
    )
    return f"({sizes}) {kinds.get(tensor.elem_type, 'unknown')}"
