"""Arrays and streams on the GPU, whoever made them: PyTorch, CuPy, pycuda, numba, JAX, or an engine's own outputs.

The protocols are the CUDA Array Interface, version 3 (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html) and
DLPack (https://dmlc.github.io/dlpack/latest/). Nothing is imported and nothing is copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import ImageError, OptionError

LEGACY_STREAM = 1  # CUDA's number of the default stream that waits for all blocking ones
_CUDA, _MANAGED = 2, 13  # kDLCUDA, kDLCUDAManaged of dlpack.h
_KINDS = {0: "i", 1: "u", 2: "f"}  # kDLInt, kDLUInt, kDLFloat


@dataclass(frozen=True)
class DeviceView:
    """A caller's C-contiguous array on the GPU.

    Attributes:
        address: of its first element.
        shape: its size in each dimension.
        dtype: numpy's.
        stream: the stream whose work must be done first; None where the producer has already taken care of that.
        writable: whether it may be written to.
        owner: keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    writable: bool
    owner: object

    @property
    def size(self) -> int:
        """In bytes."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


class DeviceArray:
    """An output left on the GPU. PyTorch (``torch.as_tensor(array, device="cuda")``), CuPy and numba take it without a copy.

    Attributes:
        shape: its size in each dimension.
        dtype: numpy's.
        address: of its first element.
        stream: the stream that computes it; work on other streams must wait for it. None: it is already computed.
    """

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], stream: int | None, free: Callable[[], None]
    ) -> None:
        """Made by the runtime; ``free`` is called when the array is deleted."""
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.stream = stream
        self._free = free

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
        }

    def __del__(self) -> None:
        self._free()

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype} {self.shape}>"


def is_on_device(value: object) -> bool:
    """Return whether a value is an array on the GPU."""
    if isinstance(value, np.ndarray):
        return False
    device = getattr(value, "__dlpack_device__", None)
    if device is not None:  # first: PyTorch's interface raises for tensors with gradients
        return int(device()[0]) in (_CUDA, _MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def named_device(value: object) -> int | None:
    """Return CUDA's number of the GPU that an array says it is on; None where it does not say, or where every GPU can reach it."""
    device = getattr(value, "__dlpack_device__", None)
    if device is None:
        return None
    kind, number = device()
    return int(number) if kind == _CUDA else None


def memory_span(value: Any) -> tuple[str, int, int] | None:
    """Return where a C-contiguous array lies: in whose memory, its first address and the one after its last; None: not known.

    Only what is known without touching the GPU: of numpy's arrays, and of those with a CUDA Array Interface.
    """
    if isinstance(value, np.ndarray):
        start = int(value.__array_interface__["data"][0])
        return "host", start, start + value.nbytes
    try:
        interface = value.__cuda_array_interface__
        start = int(interface["data"][0] or 0)
        size = int(np.prod(interface["shape"], dtype=np.int64)) * np.dtype(interface["typestr"]).itemsize
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    return "GPU", start, start + size


def view(value: Any, stream: int, where: str) -> DeviceView:
    """Return a view of an array on the GPU.

    Args:
        value: has ``__cuda_array_interface__`` or ``__dlpack__``.
        stream: of the work that will use it; a DLPack producer makes it wait for its own work.
        where: how errors call the array.

    Raises:
        ImageError: it is not C-contiguous, of a type that numpy does not have, or its library refuses to export it.
    """
    try:
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is not None and ("stream" in interface or not hasattr(value, "__dlpack__")):
            return _from_interface(value, interface, where)
        # PyTorch's interface is version 2 and names no stream; its DLPack makes our stream wait for its current one
        return _from_dlpack(value.__dlpack__(stream=stream or LEGACY_STREAM), where)  # 0 is not allowed there
    except (RuntimeError, BufferError) as error:  # PyTorch's, for tensors that need a gradient
        raise ImageError(f"{where} cannot be used: {error}") from error


def _from_interface(owner: object, interface: Mapping[str, Any], where: str) -> DeviceView:
    shape = tuple(int(size) for size in interface["shape"])
    dtype = np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and not _contiguous(shape, tuple(stride // dtype.itemsize for stride in strides)):
        raise ImageError(f"{where} is not C-contiguous; pass a contiguous copy of it")
    address, read_only = interface["data"]
    # Version 2 names no stream: wait for what the producer does on the default stream.
    stream = interface.get("stream", LEGACY_STREAM if interface.get("version", 0) < 3 else None)
    return DeviceView(int(address or 0), shape, dtype, stream, not read_only, owner)


class _DlTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def _from_dlpack(capsule: object, where: str) -> DeviceView:
    """Read a capsule. It is not consumed: its own destructor releases the memory once the view is deleted."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DlTensor.from_address(pointer(capsule, b"dltensor"))
    if tensor.code not in _KINDS or tensor.lanes != 1 or tensor.bits not in (8, 16, 32, 64):
        raise ImageError(
            f"{where} has DLPack type code {tensor.code} with {tensor.bits} bits; only integers and floats are supported"
        )
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides and not _contiguous(shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim))):
        raise ImageError(f"{where} is not C-contiguous; pass a contiguous copy of it")
    return DeviceView((tensor.data or 0) + tensor.byte_offset, shape, dtype, None, True, capsule)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether strides, in elements, are those of a C-contiguous array; axes of size 1 may have any."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def stream_handle(stream: object) -> int:
    """Return the number of a stream: an integer, or PyTorch's, CuPy's, pycuda's or cuda.core's object.

    Raises:
        OptionError: it is none of them.
    """
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):  # the protocol of cuda.core
        method = stream.__cuda_stream__
        return int((method() if callable(method) else method)[1])
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, pycuda
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise OptionError(
        f"stream is {type(stream).__name__}; pass a CUDA stream's handle as an integer, or a stream of PyTorch, CuPy, pycuda or "
        "cuda.core"
    )
