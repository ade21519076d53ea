from __future__ import annotations

import ctypes
from typing import Any

import pytest

from mtl_deploy.runtime import NoGpuError
from mtl_deploy.runtime.cuda import gpu
from mtl_deploy.runtime.cuda.gpu import Gpu, find_gpu, has_gpu
from tests.fakes.gpu import Simulation


def test_a_gpu_is_described_as_the_driver_does(machine: Simulation) -> None:
    assert find_gpu() == Gpu(0, "Simulated GPU", (8, 7), 8 << 30, "13.0")
    assert find_gpu().sm == "8.7"
    assert has_gpu()


def test_the_drivers_version_is_read_in_full(machine: Simulation) -> None:
    machine.libcuda.version = 12090
    assert find_gpu().driver == "12.9"


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    find_gpu.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not has_gpu()
    with pytest.raises(NoGpuError, match=r"^no CUDA driver$"):
        find_gpu()


@pytest.mark.parametrize(
    ("code", "devices", "index", "message"),
    [
        (0, 0, 0, "no CUDA device"),
        (100, 0, 0, "no CUDA device"),  # how real drivers say it, as with CUDA_VISIBLE_DEVICES=""
        (0, 2, 2, "no CUDA device 2; there are 2, counted from 0"),
        (0, 2, -1, "no CUDA device -1; there are 2, counted from 0"),
        (803, 1, 0, "the CUDA driver does not start (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        (12345, 1, 0, "the CUDA driver does not start (error 12345)"),
    ],
)
def test_the_reason_is_named(machine: Simulation, code: int, devices: int, index: int, message: str) -> None:
    machine.libcuda.code, machine.libcuda.devices = code, devices
    with pytest.raises(NoGpuError) as caught:
        find_gpu(index)
    assert str(caught.value) == message


@pytest.mark.gpu
def test_this_machines_gpu_is_found() -> None:
    gpu.find_gpu.cache_clear()
    try:
        found = find_gpu()
    except NoGpuError as error:
        pytest.skip(str(error))
    assert found.memory_bytes > 1 << 28
    assert found.compute_capability >= (5, 0)
