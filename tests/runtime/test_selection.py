from __future__ import annotations

import warnings
from typing import Any

import pytest

from mtl_deploy.runtime import BackendError, BundleError
from mtl_deploy.runtime.backends.onnxruntime import backend as onnxruntime_backend
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.selection import select
from tests.fakes.gpu import EngineBundle, Simulation, change_artifacts


def test_an_engine_that_fits_is_preferred_fp16_first(trt: Any, engine_bundle: EngineBundle) -> None:
    choice = select(open_bundle(engine_bundle()))
    assert (choice.artifact.path, choice.misfit) == ("fp16.trt", None)


def test_a_precision_chooses_among_engines(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = open_bundle(engine_bundle())
    for written in ("fp32", "FP32"):
        assert select(bundle, precision=written).artifact.path == "fp32.trt"


def test_the_first_engine_that_fits_is_taken(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    change_artifacts(folder, lambda artifact: artifact.path != "fp16.trt")
    assert select(open_bundle(folder)).artifact.path == "fp32.trt"


@pytest.mark.parametrize("options", [{"backend": "onnxruntime"}, {"providers": ["CPU"]}])
def test_asking_for_onnx_runtime_asks_no_engine(
    machine: Simulation, engine_bundle: EngineBundle, options: dict[str, Any]
) -> None:
    choice = select(open_bundle(engine_bundle()), **options)
    assert (choice.artifact.path, choice.misfit) == ("fp32.onnx", None)


def test_what_does_not_fit_is_told_with_the_graph(machine: Simulation, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    choice = select(open_bundle(folder))
    assert choice.artifact.path == "fp32.onnx"
    assert choice.misfit == (
        f"{folder}/fp16.trt: built for SM 8.7 with TensorRT 10.3.0; this machine: TensorRT is not installed: pip install "
        "'mtl-deploy[tensorrt]'"
    )


def test_an_engine_that_is_asked_for_and_does_not_fit_is_an_error(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(compute_capabilities=("9.0",))
    with pytest.raises(BackendError) as caught:
        select(open_bundle(folder), backend="tensorrt")
    assert str(caught.value) == (
        f"{folder}/fp16.trt: built for SM 9.0 with TensorRT 10.3.0; this machine: Simulated GPU, SM 8.7"
    )


def test_the_device_asked_for_is_looked_at(trt: Any, engine_bundle: EngineBundle) -> None:
    with pytest.raises(BackendError, match="no CUDA device 1"):
        select(open_bundle(engine_bundle()), backend="tensorrt", device=1)


def test_a_bundle_of_engines_alone_that_do_not_fit_says_why(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(version="10.0.0")
    change_artifacts(folder, lambda artifact: artifact.backend == "tensorrt")
    with pytest.raises(BackendError, match=r"TensorRT 10\.0\.0; this machine: TensorRT 10\.3\.0$"):
        select(open_bundle(folder))


def test_where_onnx_runtime_is_missing_too_both_reasons_are_named(
    trt: Any, engine_bundle: EngineBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> list[str]:
        raise BackendError("ONNX Runtime is not installed")

    monkeypatch.setattr(onnxruntime_backend, "default_providers", missing)
    with pytest.raises(BackendError, match=r"this machine: TensorRT 10\.3\.0; and ONNX Runtime is not installed$"):
        select(open_bundle(engine_bundle(version="10.0.0")))


def test_what_a_bundle_does_not_have_is_named_with_what_it_has(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    with pytest.raises(BackendError, match=r"has no int8 engine for TensorRT; it has .*fp16\.trt \(fp16, tensorrt\)"):
        select(open_bundle(folder), precision="int8", backend="tensorrt")
    change_artifacts(folder, lambda artifact: artifact.backend == "onnxruntime")
    with pytest.raises(BackendError, match="has no engine for TensorRT"):
        select(open_bundle(folder), backend="tensorrt")
    with pytest.raises(BackendError, match="backend 'openvino': this release has tensorrt, onnxruntime"):
        select(open_bundle(folder), backend="openvino")


def test_a_malformed_record_is_a_bundle_error(trt: Any, engine_bundle: EngineBundle) -> None:
    with pytest.raises(BundleError, match="malformed record of an engine"):
        select(open_bundle(engine_bundle(hardware_compatibility="?")))


def test_selecting_warns_of_nothing(machine: Simulation, engine_bundle: EngineBundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = select(open_bundle(engine_bundle()))
    assert choice.artifact.path == "fp32.onnx"
    assert "TensorRT is not installed" in (choice.misfit or "")  # whoever loads it warns
