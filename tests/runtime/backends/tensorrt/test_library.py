from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from mtl_deploy.runtime import BackendError, OptionError
from mtl_deploy.runtime.backends.tensorrt.library import import_library, importing, installed, version_numbers
from tests.fakes.gpu import Simulation


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.3.0.26", (10, 3, 0)), ("8.6.0", (8, 6, 0)), ("11.0", (11, 0)), ("10.x.1", (10, 0, 1))]
)
def test_versions_are_three_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def test_what_is_installed_is_found_without_an_import(machine: Simulation) -> None:
    assert installed() == []
    machine.install("1.7.1.116", rtx=True)
    assert installed() == ["tensorrt-rtx"]
    machine.install("10.3.0")
    assert installed() == ["tensorrt", "tensorrt-rtx"]


def test_a_library_knows_its_name_and_version(machine: Simulation) -> None:
    machine.install("8.6.0")
    machine.install("1.7.1.116", rtx=True)
    old, rtx = import_library("tensorrt"), import_library("tensorrt-rtx")
    assert (old.title, old.major, old.is_rtx, old.strongly_typed) == ("TensorRT 8.6.0", 8, False, False)
    assert (rtx.title, rtx.major, rtx.is_rtx) == ("TensorRT-RTX 1.7.1.116", 1, True)
    machine.install("10.3.0")
    assert import_library("tensorrt").strongly_typed


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.10: cannot open\nshared object file"),
        OSError("no file"),
        RuntimeError("CUDA"),
        AttributeError(),
    ],
)
def test_a_library_that_does_not_import_says_why(
    machine: Simulation, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    machine.install()

    def fail(name: str) -> Any:
        raise error

    monkeypatch.setattr(importing, "importlib", SimpleNamespace(import_module=fail))
    reason = " ".join(str(error).split()) or "AttributeError"
    with pytest.raises(BackendError) as caught:
        import_library("tensorrt")
    assert str(caught.value) == (
        f"TensorRT is installed but does not load ({reason}); install it again: pip install 'mtl-deploy[tensorrt]'"
    )


def test_a_missing_library_names_its_extra(machine: Simulation) -> None:
    with pytest.raises(
        BackendError, match=r"^TensorRT-RTX is not installed: pip install 'mtl-deploy\[tensorrt-rtx\]'$"
    ):
        import_library("tensorrt-rtx")


def test_the_real_tensorrt_rtx_has_all_that_running_needs() -> None:
    trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    for owner, names in {
        trt.ICudaEngine: (
            "device_memory_size_v2",
            "create_execution_context",
            "create_runtime_config",
            "get_tensor_mode",
        ),
        trt.IExecutionContext: ("set_device_memory", "execute_async_v3", "set_input_shape", "set_tensor_address"),
        trt.IRuntimeConfig: ("create_runtime_cache", "set_runtime_cache", "set_execution_context_allocation_strategy"),
        trt.IRuntimeCache: ("serialize", "deserialize"),
        trt.ExecutionContextAllocationStrategy: ("USER_MANAGED",),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
        trt.TensorIOMode: ("INPUT", "OUTPUT"),
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == []
    assert not hasattr(trt.ICudaEngine, "create_execution_context_without_device_memory")
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")


def test_rtx_has_neither_timing_cache_nor_compatibility_levels(machine: Simulation, tmp_path: Any) -> None:
    machine.install("1.7.1.116", rtx=True)
    library = import_library("tensorrt-rtx")
    config = SimpleNamespace()
    for refused in (
        lambda: library.set_version_compatible(config),
        lambda: library.set_hardware_compatibility(config, "ampere_plus"),
        lambda: library.load_timing_cache(config, tmp_path / "cache"),
    ):
        with pytest.raises(OptionError, match="TensorRT-RTX"):
            refused()
    machine.install("10.3.0")
    with pytest.raises(OptionError, match="--gpu is TensorRT-RTX's"):
        import_library("tensorrt").set_gpus(config, ["sm86"])


def test_a_module_is_imported_once(machine: Simulation) -> None:
    machine.install()
    assert import_library("tensorrt") is import_library("tensorrt")
    assert importlib.import_module("tensorrt") is import_library("tensorrt").module
