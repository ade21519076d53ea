from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from mtl_deploy.runtime import BackendError, BundleError, NoGpuError
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from tests.fakes.gpu import Simulation, record_of


def test_a_record_survives_the_manifest() -> None:
    record = record_of(compute_capabilities=("8.6", "8.9"), version_compatible=True)
    details = record.to_details()
    assert details["compute_capabilities"] == ["8.6", "8.9"]
    assert details["seconds"] == 1.5
    assert EngineRecord.from_details(details, "x") == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library": "onednn"}, "library: 'onednn' is not one of"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility: 'all' is not one of"),
        ({"compute_capabilities": ["8.x"]}, "compute_capabilities[0]: '8.x' is not a compute capability such as 8.6"),
        ({"compute_capabilities": None}, "compute_capabilities: null is not a list"),
        ({"version": ...}, "field 'version' is missing"),
    ],
)
def test_a_malformed_record_is_a_bundle_error(change: dict[str, Any], message: str) -> None:
    details = record_of().to_details() | change
    details = {name: value for name, value in details.items() if value is not ...}
    with pytest.raises(BundleError, match=r"model\.mtl/fp16\.trt: malformed record of an engine") as caught:
        EngineRecord.from_details(details, "model.mtl/fp16.trt")
    assert message in str(caught.value)
    assert str(caught.value).endswith("; build it again")


FITTING: list[dict[str, Any]] = [
    {},
    {"version": "10.3.0.26"},  # the fourth number names a build
    {"compute_capabilities": ("8.6", "8.7")},
    {"compute_capabilities": ("8.0",), "hardware_compatibility": "ampere_plus"},
    {"version": "8.6.1", "version_compatible": True},
    {"version": "10.0.1", "version_compatible": True},
]


@pytest.mark.parametrize("changes", FITTING)
def test_what_fits_gives_library_and_gpu(machine: Simulation, trt: Any, changes: dict[str, Any]) -> None:
    library, gpu = record_of(**changes).require_fit()
    assert library.module is trt
    assert gpu.sm == "8.7"


BUILT = "built for SM 8.7 with TensorRT 10.3.0; this machine: "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "10.0.1"}, "built for SM 8.7 with TensorRT 10.0.1; this machine: TensorRT 10.3.0"),
        ({"version": "10.4.0", "version_compatible": True}, "with TensorRT 10.4.0; this machine: TensorRT 10.3.0"),
        (
            {"compute_capabilities": ("8.6", "8.9")},
            "built for SM 8.6, 8.9 with TensorRT 10.3.0; this machine: Simulated GPU, SM 8.7",
        ),
        (
            {"compute_capabilities": ("8.6",), "hardware_compatibility": "same_compute_capability"},
            "built for SM 8.6 with TensorRT 10.3.0; this machine: Simulated GPU, SM 8.7",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    machine: Simulation, trt: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackendError) as caught:
        record_of(**changes).require_fit()
    assert str(caught.value).endswith(message)
    assert type(caught.value) is BackendError


@pytest.mark.parametrize(
    ("here", "there", "runs"),
    [
        ("10.3.0", "10.0.1", True),
        ("10.3.0", "8.6.1", True),
        ("11.4.0", "10.3.0", True),
        ("11.4.0", "11.0.0", True),
        ("8.6.1", "8.6.0", True),
        ("10.3.0", "10.4.0", False),
        ("11.4.0", "8.6.1", False),
        ("12.0.0", "11.4.0", False),
        ("12.0.0", "10.3.0", False),
        ("8.6.1", "7.2.1", False),
        ("10.3.0", "11.0.0", False),
    ],
)
def test_version_compatible_plans_run_where_nvidia_says_so(
    machine: Simulation, here: str, there: str, runs: bool
) -> None:
    machine.install(here)
    record = record_of(version=there, version_compatible=True)
    if runs:
        assert record.require_fit()[0].version == here
        return
    with pytest.raises(BackendError, match=rf"with TensorRT {there}; this machine: TensorRT {here}$"):
        record.require_fit()


def test_older_gpus_are_no_ampere(machine: Simulation, trt: Any) -> None:
    machine.libcuda.capability, machine.libcuda.name = (7, 2), "Xavier"
    with pytest.raises(BackendError) as caught:
        record_of(compute_capabilities=("8.6",), hardware_compatibility="ampere_plus").require_fit()
    assert str(caught.value) == "built for SM 8.6 with TensorRT 10.3.0; this machine: Xavier, SM 7.2"


def test_a_machine_without_a_driver_says_so(machine: Simulation, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise NoGpuError("no CUDA driver")

    monkeypatch.setattr("mtl_deploy.runtime.cuda.gpu.libcuda", missing)
    with pytest.raises(NoGpuError) as caught:
        record_of().require_fit()
    assert str(caught.value) == BUILT + "no CUDA driver"


def test_a_machine_without_a_device_says_so(machine: Simulation, trt: Any) -> None:
    machine.libcuda.devices = 0
    with pytest.raises(NoGpuError) as caught:
        record_of().require_fit()
    assert str(caught.value) == BUILT + "no CUDA device"


def test_a_device_that_does_not_exist_is_named(machine: Simulation, trt: Any) -> None:
    with pytest.raises(NoGpuError) as caught:
        record_of().require_fit(device=3)
    assert str(caught.value) == BUILT + "no CUDA device 3; there are 1, counted from 0"


def test_a_missing_library_is_named_with_its_remedy(machine: Simulation) -> None:
    with pytest.raises(BackendError) as caught:
        record_of().require_fit()
    assert str(caught.value) == BUILT + "TensorRT is not installed: pip install 'mtl-deploy[tensorrt]'"


def test_a_broken_library_is_named_with_its_remedy(machine: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = machine.install()
    broken = ModuleType("tensorrt")
    broken.__spec__, broken.__version__ = trt.__spec__, "10.3.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", broken)
    with pytest.raises(BackendError) as caught:
        record_of().require_fit()
    assert str(caught.value).startswith(
        BUILT + "TensorRT is installed but does not load (module 'tensorrt' has no attribute"
    )
    assert str(caught.value).endswith("install it again: pip install 'mtl-deploy[tensorrt]'")


@pytest.mark.parametrize(
    ("built", "capability", "fits"),
    [
        ((), (8, 6), True),
        ((), (12, 0), True),
        ((), (7, 5), False),
        (("8.6", "8.9"), (8, 9), True),
        (("8.6", "8.9"), (12, 0), False),
        (("7.5",), (7, 5), True),
    ],
)
def test_tensorrt_rtx_runs_on_the_gpus_it_was_built_for_or_from_ampere_on(
    machine: Simulation, built: tuple[str, ...], capability: tuple[int, int], fits: bool
) -> None:
    machine.install("1.7.1.116", rtx=True)
    machine.libcuda.capability = capability
    record = record_of(library="tensorrt-rtx", version="1.7.1.116", compute_capabilities=built)
    if fits:
        assert record.require_fit()[0].is_rtx
        return
    with pytest.raises(BackendError) as caught:
        record.require_fit()
    names = "SM " + ", ".join(built) if built else "SM 8.0 and later"
    here = f"Simulated GPU, SM {capability[0]}.{capability[1]}"
    assert str(caught.value) == f"built for {names} with TensorRT-RTX 1.7.1.116; this machine: {here}"


def test_another_release_of_tensorrt_rtx_does_not_fit(machine: Simulation) -> None:
    machine.install("1.7.1.116", rtx=True)
    with pytest.raises(BackendError, match=r"with TensorRT-RTX 1\.6\.0; this machine: TensorRT-RTX 1\.7\.1\.116$"):
        record_of(library="tensorrt-rtx", version="1.6.0").require_fit()
