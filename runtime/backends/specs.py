"""Checks that a loaded graph or engine has the inputs and outputs that its signature says, as far as is known before it runs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.schema import MOST_BATCH
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.errors import BundleError

from .base import Backend

_MOST_INPUT = 4 << 30  # bytes


def check_specs(backend: Backend, signature: Signature, where: str) -> None:
    """Check a loaded artifact's inputs and outputs against a signature, as far as they are known before it runs.

    Args:
        backend: its outputs are all of the signature's tasks, or some of them.
        signature: says what they must be.
        where: how errors call the file.

    Raises:
        BundleError: names, types or sizes differ.
    """
    outputs = {spec.name for spec in backend.outputs}
    if [spec.name for spec in backend.inputs] != [INPUT_NAME] or not outputs <= {task.name for task in signature.tasks}:
        raise BundleError(f"{where}: its inputs and outputs are not those of its metadata; export it again")
    _check_input(backend.inputs[0], signature.preprocessing, where)
    for spec in backend.outputs:
        _check_output(spec, signature, where)


def _check_input(spec: TensorSpec, preprocessing: Preprocessing, where: str) -> None:
    uint8 = preprocessing.input == "uint8"
    dtype = np.dtype(np.uint8 if uint8 else np.float32)
    shape: tuple[int | None, ...] = preprocessing.input_shape
    if preprocessing.multiple:
        channels = preprocessing.channel_count
        shape = (None, None, channels) if uint8 else (channels, None, None)
    _check_spec(spec, dtype, (None, *shape), where)
    batch = spec.shape[0] or 1
    if not 1 <= batch <= MOST_BATCH or batch * prod(preprocessing.input_shape) * dtype.itemsize > _MOST_INPUT:
        size = (
            f"{preprocessing.height}x{preprocessing.width}"
            if preprocessing.source is None
            else preprocessing.source.size
        )
        raise BundleError(
            f"{where}: takes batches of {batch} images of {size}, more than {_MOST_INPUT >> 20} MiB; export it for smaller batches"
        )


def _check_output(spec: TensorSpec, signature: Signature, where: str) -> None:
    shape: tuple[int | None, ...] = signature.sample_shape(spec.name)
    if multiple := signature.preprocessing.multiple:
        sides = signature.preprocessing.height + multiple, signature.preprocessing.width + multiple
        larger = signature.sample_shape(spec.name, *sides)
        shape = tuple(one if one == other else None for one, other in zip(shape, larger, strict=True))
    _check_spec(spec, signature.dtype(spec.name), (None, *shape), where)


def _check_spec(spec: TensorSpec, dtype: np.dtype[Any], shape: tuple[int | None, ...], where: str) -> None:
    """Compare a tensor of the graph with what its task says; a size that one of them leaves open matches any size."""
    fits = len(spec.shape) == len(shape) and all(
        one is None or other is None or one == other for one, other in zip(spec.shape, shape, strict=True)
    )
    if spec.dtype != dtype or not fits:
        raise BundleError(
            f"{where}: {spec.name!r} is {spec.dtype} {_shape(spec.shape)}, by its metadata {dtype} {_shape(shape)}; export it again"
        )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
