"""Drivers that are too old: TensorRT ends the process on them, so it must not be asked."""

from __future__ import annotations

from typing import Any

import pytest

from mtl_deploy.export.engines.bundle_engines import find_builder
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime import BackendError, FallbackWarning, load
from mtl_deploy.runtime.backends.tensorrt.start import built_for, require_driver
from tests.fakes.gpu import IMAGES, EngineBundle, Simulation, check

WHEELS: list[tuple[str, tuple[str, ...], int | None]] = [
    ("tensorrt_cu12", ("tensorrt_cu12_libs==10.3.0",), 12),
    ("tensorrt_cu13", (), 13),
    ("tensorrt", ("tensorrt_cu12==10.16.1",), 12),  # the package that brings one of the two
    ("tensorrt", ("tensorrt_cu13==11.4.0.106",), 13),
    ("tensorrt_libs", ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"), 12),  # 8.6.1
    ("tensorrt", ("nvidia-cublas-cu12; platform_system == 'Linux'", "numpy"), 12),
    ("tensorrt", (), None),  # JetPack's
    ("tensorrt", ("numpy", "nvidia-cu13; extra == 'x'"), None),
    ("tensorrt_llm_cu13", (), None),
]


@pytest.mark.parametrize(("project", "requires", "cuda"), WHEELS)
def test_a_wheel_says_which_cuda_it_is_built_for(
    machine: Simulation, project: str, requires: tuple[str, ...], cuda: int | None
) -> None:
    machine.install_wheel(project, *requires)
    assert built_for("tensorrt") == cuda


def test_where_wheels_of_two_lie_about_the_older_one_counts(machine: Simulation) -> None:
    machine.install_wheel("tensorrt_cu13")
    machine.install_wheel("tensorrt_cu12")
    assert built_for("tensorrt") == 12


@pytest.mark.parametrize("driver", ["13.0", "12.0", "12.9"])
def test_a_driver_of_the_same_cuda_or_a_later_one_serves(machine: Simulation, driver: str) -> None:
    machine.install_wheel("tensorrt_cu12")
    assert built_for("tensorrt") == 12
    require_driver("tensorrt", driver)
    with pytest.raises(BackendError, match=r"is installed for CUDA 12, and the GPU's driver supports CUDA 11\.8"):
        require_driver("tensorrt", "11.8")


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.3.0", "11.4.0"])
def test_a_driver_that_is_too_old_is_said_before_the_library_is_touched(
    machine: Simulation, engine_bundle: EngineBundle, version: str
) -> None:
    trt = machine.install(version)
    machine.install_wheel(f"tensorrt_cu{trt.built_for}", version=version)
    machine.libcuda.version = 1000 * (trt.built_for - 1) + 80
    bundle = engine_bundle(version=version)
    need, have = trt.built_for, f"{trt.built_for - 1}.8"
    with pytest.raises(BackendError, match=rf"is installed for CUDA {need}, and the GPU's driver supports CUDA {have}"):
        load(bundle, backend="tensorrt")
    with pytest.warns(FallbackWarning, match=f"CUDA {have}"), load(bundle) as model:
        check(model(IMAGES[:2]), IMAGES[:2])
    asked = find_builder(EngineOptions(library="auto"))
    assert isinstance(asked, str)
    assert f"supports CUDA {have}" in asked
    assert trt.started == 0


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_a_runtime_that_did_not_start_is_neither_touched_nor_freed(
    machine: Simulation, engine_bundle: EngineBundle, version: str
) -> None:
    trt = machine.install(version)  # as JetPack does: no wheel says what it is built for
    machine.libcuda.version = 11040
    bundle = engine_bundle(version=version)
    for _ in range(2):
        with pytest.raises(
            BackendError, match=r"does not start \(.*CUDA initialization failure with error: 35.*; update"
        ):
            load(bundle, backend="tensorrt")
    with pytest.warns(FallbackWarning, match="initialization failure"), load(bundle) as model:
        check(model(IMAGES[:2]), IMAGES[:2])
    assert trt.started == 3


def test_a_runtime_that_is_null_is_a_backend_error(trt: Any, engine_bundle: EngineBundle) -> None:
    trt.runtime_error = "Cuda Runtime (no CUDA-capable device is detected)"
    with pytest.raises(
        BackendError, match=r"does not start \(Cuda Runtime \(no CUDA-capable device is detected\)\); update"
    ):
        load(engine_bundle(), backend="tensorrt")


def test_tensorrt_rtx_on_an_old_driver_does_not_run_but_builds(
    machine: Simulation, engine_bundle: EngineBundle
) -> None:
    machine.install("1.7.1.116", rtx=True)
    machine.libcuda.version = 12060
    machine.install_wheel("tensorrt_rtx_cu13", version="1.7.1.116")
    bundle = engine_bundle(library="tensorrt-rtx", version="1.7.1.116")
    with pytest.raises(BackendError, match=r"TensorRT-RTX is installed for CUDA 13, .* supports CUDA 12\.6"):
        load(bundle, backend="tensorrt")
    assert not isinstance(find_builder(EngineOptions(library="tensorrt-rtx")), str)
