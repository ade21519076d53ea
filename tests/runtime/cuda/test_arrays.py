from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import DeviceArray, ImageError, OptionError
from mtl_deploy.runtime.cuda.arrays import LEGACY_STREAM, is_on_device, stream_handle, view
from tests.fakes.gpu import DlPackArray, GpuArray, Simulation


@pytest.fixture
def memory(machine: Simulation) -> Any:
    with machine.as_torch():
        array = GpuArray(
            machine.cuda, np.arange(24, dtype=np.float32).reshape(2, 3, 4), stream=machine.cuda.new_stream()
        )
        yield array
        array.free()
        machine.cuda.cuStreamDestroy(array.stream)


def test_the_array_interface_is_read_in_full(memory: GpuArray) -> None:
    owner = memory.interface()
    found = view(owner, 5, "x")
    assert (found.address, found.shape, found.dtype) == (memory.address, (2, 3, 4), np.float32)
    assert (found.size, found.writable, found.stream, found.owner) == (96, True, memory.stream, owner)
    assert not view(memory.interface(data=(memory.address, True)), 5, "x").writable
    assert view(memory.interface(stream=None), 5, "x").stream is None


def test_version_2_without_a_stream_waits_for_the_default_stream(memory: GpuArray) -> None:
    old = memory.interface(version=2)
    del old.__cuda_array_interface__["stream"]
    assert view(old, 5, "x").stream == LEGACY_STREAM
    new = memory.interface()
    del new.__cuda_array_interface__["stream"]  # version 3: there is nothing to wait for
    assert view(new, 5, "x").stream is None


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [
        ((2, 3, 4), (48, 16, 4), True),
        ((1, 3, 4), (999, 16, 4), True),  # an axis of size 1 may have any stride
        ((2, 3, 4), (4, 8, 24), False),
        ((2, 3, 4), (96, 16, 4), False),
    ],
)
def test_strides_are_taken_where_they_are_contiguous(
    memory: GpuArray, shape: tuple[int, ...], strides: tuple[int, ...], contiguous: bool
) -> None:
    array = memory.interface(shape=shape, strides=strides)
    if contiguous:
        assert view(array, 5, "x").shape == shape
    else:
        with pytest.raises(ImageError, match=r"^x is not C-contiguous; pass a contiguous copy of it$"):
            view(array, 5, "x")


def test_dlpack_is_read_in_full_and_ordered_by_its_producer(memory: GpuArray) -> None:
    owner = memory.dlpack(byte_offset=32)
    found = view(owner, memory.stream or 0, "x")
    assert (found.address, found.shape, found.dtype) == (memory.address, (2, 3, 4), np.float32)
    assert (found.stream, found.writable) == (None, True)
    assert owner.asked == [memory.stream]
    assert view(memory.dlpack(strides=(12, 4, 1)), 1, "x").shape == (2, 3, 4)
    with pytest.raises(ImageError, match="C-contiguous"):
        view(memory.dlpack(strides=(1, 2, 6)), 1, "x")


def test_the_default_stream_has_another_number_in_dlpack(memory: GpuArray) -> None:
    owner = memory.dlpack()
    view(owner, 0, "x")
    assert owner.asked == [LEGACY_STREAM]


@pytest.mark.parametrize(("code", "bits", "lanes"), [(4, 16, 1), (2, 32, 4), (0, 4, 1), (6, 8, 1)])
def test_types_that_numpy_has_not_are_refused(memory: GpuArray, code: int, bits: int, lanes: int) -> None:
    with pytest.raises(
        ImageError, match=f"x has DLPack type code {code} with {bits} bits; only integers and floats are supported"
    ):
        view(memory.dlpack(code=code, bits=bits, lanes=lanes), 1, "x")


class WithGradient(DlPackArray):
    """As PyTorch's tensors that need a gradient."""

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")


def test_an_array_that_its_library_keeps_is_an_image_error(memory: GpuArray) -> None:
    with pytest.raises(
        ImageError, match="x cannot be used: Can't get __cuda_array_interface__ on Variable that requires grad"
    ):
        view(WithGradient(memory, {}), 1, "x")


def test_arrays_on_the_gpu_are_told_from_others(memory: GpuArray) -> None:
    assert is_on_device(memory.interface())
    assert is_on_device(memory.dlpack())
    assert is_on_device(memory.dlpack(device=13))
    assert is_on_device(WithGradient(memory, {}))
    assert not is_on_device(memory.dlpack(device=1))
    assert not is_on_device(np.zeros(3))
    assert not is_on_device([1, 2])


def test_a_device_array_says_what_it_is_and_frees_its_memory() -> None:
    freed: list[int] = []
    array = DeviceArray(512, (2, 3), np.dtype(np.float32), 7, lambda: freed.append(1))
    assert array.__cuda_array_interface__ == {
        "version": 3,
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (512, False),
        "strides": None,
        "stream": 7,
    }
    assert repr(array) == "<DeviceArray float32 (2, 3)>"
    seen = view(array, 1, "x")
    del array
    assert freed == []
    del seen
    assert freed == [1]


def test_streams_of_every_library_have_a_number() -> None:
    assert stream_handle(0) == 0
    assert stream_handle(SimpleNamespace(cuda_stream=3)) == 3
    assert stream_handle(SimpleNamespace(ptr=4)) == 4
    assert stream_handle(SimpleNamespace(handle=5)) == 5
    assert stream_handle(SimpleNamespace(__cuda_stream__=lambda: (0, 6), handle=object())) == 6
    with pytest.raises(OptionError, match="stream is NoneType; pass a CUDA stream's handle as an integer"):
        stream_handle(None)


@pytest.mark.gpu
def test_a_tensor_of_pytorch_is_read_where_it_lies() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    tensor = torch.arange(6, device="cuda", dtype=torch.uint8).reshape(2, 3)
    found = view(tensor, torch.cuda.current_stream().cuda_stream, "x")
    assert (found.address, found.shape, found.dtype) == (tensor.data_ptr(), (2, 3), np.uint8)
