"""Callers' arrays on the GPU, checked before an engine reads or writes them."""

from __future__ import annotations

from typing import Any

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.cuda.arrays import DeviceView, named_device, view
from mtl_deploy.runtime.cuda.driver import ALIGNMENT, device_of
from mtl_deploy.runtime.errors import ImageError

from .memory import Shape, sizes_of


def accept(
    value: Any, stream: int, where: str, device: int, spec: TensorSpec, shape: Shape | None = None
) -> DeviceView:
    """Return a caller's array once it is checked that it can serve as a tensor; the model's CUDA context is current.

    Args:
        value: the array, see :func:`~mtl_deploy.runtime.cuda.arrays.view`.
        stream: of the work that will use it.
        where: how errors call it.
        device: CUDA's number of the model's GPU.
        spec: the tensor.
        shape: of the output; None: it serves as the input.

    Raises:
        ImageError: it is on another GPU, of another shape or type, read-only, or not aligned.
    """
    _require_device(named_device(value), device, where)  # first: a producer need not know a stream on another GPU
    array = view(value, stream, where)
    _require_device(device_of(array.address), device, where)
    expected = shape
    if expected is None:
        fixed = (None, *spec.shape[1:])
        fits = len(array.shape) == len(fixed) and all(
            own in (None, size) for own, size in zip(fixed, array.shape, strict=True)
        )
        count = array.shape[0] if array.shape else 0
        expected = array.shape if fits else (count, *sizes_of(spec))
    if array.dtype != spec.dtype or array.shape != expected:
        raise ImageError(
            f"got {array.dtype} {array.shape} on the GPU for {spec.name!r}; expected {spec.dtype} {expected}"
        )
    if shape is not None and (array.address % ALIGNMENT or not array.writable):
        raise ImageError(f"the GPU array for {spec.name!r} must be writable and aligned to {ALIGNMENT} bytes")
    return array


def _require_device(found: int | None, device: int, where: str) -> None:
    """Refuse an array on another GPU: the model's GPU would read or write at an address that is not its own."""
    if found not in (None, device):
        raise ImageError(
            f"{where} is on GPU {found}, the model is on GPU {device}; copy it there, or load the model with device={found}"
        )
