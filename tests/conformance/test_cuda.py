"""The code's use of CUDA against the real cuda-bindings of both majors, over a small libcuda.so.1 that is compiled here."""

from __future__ import annotations

import re

import pytest

from tests.conformance.modules import BINDINGS, Module, ask, libcuda, parameters
from tests.conformance.uses import CUDA_FILES, LIBCUDA_FILES, ROOT, cuda_uses, libcuda_uses
from tests.fakes.cuda import SimulatedCuda

MODULES = parameters(BINDINGS)


@pytest.mark.parametrize("module", MODULES)
def test_every_function_enum_and_member_exists(module: Module) -> None:
    names = ask("names_of_cuda.py", module)
    functions = {use.name for use in cuda_uses() if use.name.startswith("cu")}
    assert len(functions) > 30
    assert functions - set(names) == set()
    for use in cuda_uses():
        if use.name.startswith("CU_"):
            assert use.name in (names[use.owner] if use.owner else names), use
    simulated = {name for name in dir(SimulatedCuda) if name.startswith("cu") and name[2:3].isupper()}
    assert simulated - set(names) == set()
    own = {name.removesuffix("_v2") for name in libcuda_uses()}  # by ctypes, where versions are in the names
    assert own - set(names) == set()


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("driver", ["12060", "12080", "13000"])
def test_the_layer_works_on_old_and_new_drivers(module: Module, driver: str) -> None:
    environment = {"LD_LIBRARY_PATH": str(libcuda()), "CUDA_SIM_VERSION": driver}
    found = ask("probe_cuda.py", module, environment=environment)
    assert found["gpu"] == ["Simulated GPU", f"{driver[:2]}.{driver[3]}"]
    assert found["copies"] is True
    assert found["elapsed"] == 1.0  # also where the bindings ask for a function that came with CUDA 12.8
    assert found["graphs"] == ["NoGpuError: given up"]
    assert found["memory"] == [4 << 30, 8 << 30]
    assert found["device"] is None  # there is one GPU: nobody need ask
    assert found["borrowed"] is False  # a primary context is retained, whoever made it current
    failures = found["failures"]
    assert failures["2"].startswith("DeviceMemoryError: the GPU's memory is full (CUDA_ERROR_OUT_OF_MEMORY)")
    assert failures["700"].startswith("DeviceLostError: the GPU's context is unusable (CUDA_ERROR_ILLEGAL_ADDRESS)")
    assert failures["999"] == "RunError: CUDA failed: CUDA_ERROR_UNKNOWN"
    assert failures["9999"] == "RunError: CUDA failed: CUDA_ERROR_OF_TOMORROW"
    assert failures["9998"] == failures["700"]
    assert failures["8888"] == "RunError: CUDA failed: error 8888"
    assert {use.name for use in cuda_uses() if use.name.startswith("cu")} - set(found["called"]) <= {
        "cuPointerGetAttribute"  # with several GPUs, see below
    }


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("device", ["0", "1"])
def test_memory_is_found_on_its_gpu(module: Module, device: str) -> None:
    environment = {"LD_LIBRARY_PATH": str(libcuda()), "CUDA_SIM_DEVICES": "2", "CUDA_SIM_POINTER_DEVICE": device}
    assert ask("probe_cuda.py", module, environment=environment)["device"] == int(device)


def test_no_other_file_calls_the_driver() -> None:
    found = set()
    for room in ("runtime", "export", "bench", "calibration"):
        for file in (ROOT / room).rglob("*.py"):
            if re.search(r"\.cu[A-Z]\w+\(", file.read_text(encoding="utf-8")):
                found.add(file)
    assert found - {*CUDA_FILES, *LIBCUDA_FILES} == set()
