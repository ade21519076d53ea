"""How many images a graph runs on at once, so that its largest tensors fit into a fixed share of memory."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import TYPE_CHECKING

from mtl_deploy.runtime.bundle.signature import Signature

if TYPE_CHECKING:
    import onnx

LARGEST = 256 << 20
"""Bytes of a batch's largest tensor. A few tensors of that size exist at once while a graph runs, and more of smaller ones."""
_FLOAT = 4  # bytes


def image_bytes(model: onnx.ModelProto, signature: Signature) -> dict[str, int]:
    """Return the bytes of each float32 tensor for one image at the signature's size, as far as its shape can be inferred.

    Shapes are inferred with one image at that size as the input: what the file says of inner tensors may leave sides free, and
    their first side need not be the batch's (window attention has images times windows there).

    Args:
        model: a graph of the signature. It is not changed.
        signature: has the size of the input where the graph leaves it free.
    """
    from .typed import float_tensors, typed

    preprocessing = signature.preprocessing
    sides = (preprocessing.height, preprocessing.width)
    images = 1
    known: dict[str, int] = {}
    declared = model.graph.input[0].type.tensor_type.shape.dim
    if preprocessing.source is not None:
        images = declared[0].dim_value or 1
        known = {declared[0].dim_param: images} if declared[0].dim_param else {}
    elif len(declared) == 4:
        images = declared[0].dim_value or 1
        spatial = declared[1:3] if preprocessing.input == "uint8" else declared[2:4]
        wanted = zip((declared[0], *spatial), (images, *sides), strict=True)
        known = {side.dim_param: size for side, size in wanted if not side.dim_value}
    found: dict[str, int] = {}
    for value in float_tensors(typed(model, known).graph):
        counts = [side for side in value.shape or () if isinstance(side, int)]
        found[str(value.name)] = _FLOAT * prod(counts) // images
    return found


def images_at_once(model: onnx.ModelProto | bytes | None, signature: Signature, most: int) -> int:
    """Return how many images to run a graph on at once: as many as :data:`LARGEST` allows, at least one.

    Args:
        model: the graph, or its ``.onnx`` file; None where another program computes the outputs.
        signature: of the graph. Dense outputs count with all channels at their full size, as a graph or the decoding computes them.
        most: where memory does not limit it.
    """
    preprocessing = signature.preprocessing
    pixels = preprocessing.height * preprocessing.width
    maps = [task.size for task in signature.tasks if task.of.of_maps]
    sizes = [_FLOAT * channels * pixels for channels in (preprocessing.channel_count, *maps)]
    if (source := preprocessing.source) is not None:
        sizes.append(_FLOAT * 3 * source.height * source.width)
    if isinstance(model, bytes):
        import onnx

        model = onnx.load_from_string(model)
    if model is not None:
        sizes += image_bytes(model, signature).values()
    return max(min(most, LARGEST // max(sizes)), 1)


def portions(sizes: dict[str, int], names: Collection[str], limit: int) -> list[list[str]]:
    """Divide tensors into portions that take at most ``limit`` bytes per image together; a larger one is alone.

    Args:
        sizes: by tensor, its bytes for one image.
        names: the tensors to divide, in order.
        limit: bytes.
    """
    found: list[list[str]] = []
    room = 0
    for name in names:
        size = sizes.get(name, 0)
        if not found or size > room:
            found.append([])
            room = limit
        found[-1].append(name)
        room -= size
    return found
