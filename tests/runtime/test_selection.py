from __future__ import annotations

import warnings
from typing import Any

import pytest

from mtl_deploy.runtime import BackendError, BundleError, FallbackWarning, OptionError, load, selection
from mtl_deploy.runtime.backends.onnxruntime import backend as onnxruntime_backend
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.selection import select
from tests.conftest import MakeBundle
from tests.fakes.gpu import EngineBundle, Simulation, change_artifacts


@pytest.fixture(autouse=True)
def _own_choice(graphs_on: str) -> None:
    if graphs_on != "onnxruntime":
        pytest.skip("--graphs-on makes the choice")


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
    monkeypatch.setattr(selection, "is_installed", lambda: False)
    bundle = open_bundle(engine_bundle(version="10.0.0"))
    with pytest.raises(BackendError, match=r"this machine: TensorRT 10\.3\.0; and ONNX Runtime is not installed$"):
        select(bundle)
    monkeypatch.setattr(selection, "is_installed", lambda: True)
    choice = select(bundle)
    assert (choice.artifact.path, choice.backend, choice.why) == (
        "fp32.onnx",
        "openvino",
        "ONNX Runtime is not installed",
    )
    assert "this machine: TensorRT 10.3.0" in (choice.misfit or "")


def test_what_a_bundle_does_not_have_is_named_with_what_it_has(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    with pytest.raises(BackendError, match=r"has no int8 engine for TensorRT; it has .*fp16\.trt \(fp16, tensorrt\)"):
        select(open_bundle(folder), precision="int8", backend="tensorrt")
    change_artifacts(folder, lambda artifact: artifact.backend == "onnxruntime")
    with pytest.raises(BackendError, match="has no engine for TensorRT"):
        select(open_bundle(folder), backend="tensorrt")
    with pytest.raises(BackendError, match="backend 'tvm': this release has tensorrt, onnxruntime, openvino"):
        select(open_bundle(folder), backend="tvm")


def test_a_malformed_record_is_a_bundle_error(trt: Any, engine_bundle: EngineBundle) -> None:
    with pytest.raises(BundleError, match="malformed record of an engine"):
        select(open_bundle(engine_bundle(hardware_compatibility="?")))


def test_selecting_warns_of_nothing(machine: Simulation, engine_bundle: EngineBundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = select(open_bundle(engine_bundle()))
    assert choice.artifact.path == "fp32.onnx"
    assert "TensorRT is not installed" in (choice.misfit or "")  # whoever loads it warns


PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")


@pytest.mark.parametrize("machine_word", ["x86_64", "AMD64"])
def test_int8_runs_on_openvino_on_x86_where_it_is_installed(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, machine_word: str
) -> None:
    monkeypatch.setattr(onnxruntime_backend, "default_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(selection, "is_installed", lambda: True)
    monkeypatch.setattr(selection.platform, "machine", lambda: machine_word)
    bundle = open_bundle(make_bundle(precisions=PRECISIONS))
    choice = select(bundle, precision="int8")
    assert (choice.artifact.path, choice.backend) == ("int8-cpu.onnx", "openvino")
    assert "faster" in choice.why
    assert select(bundle).backend == "onnxruntime"
    assert select(bundle, precision="int8", backend="onnxruntime").backend == "onnxruntime"
    assert select(bundle, precision="int8", providers=["CPU"]).backend == "onnxruntime"
    assert select(bundle, backend="openvino").artifact.path == "fp32.onnx"
    assert select(bundle, precision="int8", backend="openvino").artifact.path == "int8-cpu.onnx"


def test_int8_stays_on_onnx_runtime_elsewhere(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(make_bundle(precisions=PRECISIONS))
    monkeypatch.setattr(onnxruntime_backend, "default_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(selection, "is_installed", lambda: True)
    monkeypatch.setattr(selection.platform, "machine", lambda: "aarch64")
    assert select(bundle, precision="int8").backend == "onnxruntime"
    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(selection, "is_installed", lambda: False)
    choice = select(bundle, precision="int8")
    assert (choice.backend, choice.why) == ("onnxruntime", "OpenVINO, which may be faster here, is not installed")
    monkeypatch.setattr(selection, "is_installed", lambda: True)
    monkeypatch.setattr(
        onnxruntime_backend, "default_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    choice = select(bundle, precision="int8")
    assert (choice.artifact.path, choice.backend) == ("int8.onnx", "onnxruntime")
    assert "GPU" in choice.why


def test_providers_and_openvino_contradict_each_other(make_bundle: MakeBundle) -> None:
    with pytest.raises(OptionError, match="leave one of them out"):
        select(open_bundle(make_bundle()), backend="openvino", providers=["CPU"])


def test_loading_follows_the_choice_and_says_why(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    bundle = make_bundle(precisions=PRECISIONS)
    with load(bundle, precision="int8") as model, load(bundle / "int8-cpu.onnx") as file:
        for one in (model, file):
            assert (one.backend.name, one.artifact and one.artifact.path) == ("openvino", "int8-cpu.onnx")
            assert one.why == "it runs INT8 graphs faster on x86 processors"
    with load(bundle / "fp32.onnx", backend="openvino") as model:
        assert model.backend.name == "openvino"


def test_openvino_that_was_not_asked_for_gives_way_with_its_reason(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that is broken, or lacks an operator."""
    from mtl_deploy.runtime.backends.openvino import backend as openvino_backend

    def broken() -> None:
        raise BackendError("OpenVINO is installed but broken (x); install it again")

    monkeypatch.setattr(selection, "is_installed", lambda: True)
    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(openvino_backend, "start", broken)
    bundle = make_bundle(precisions=("fp32", "int8-cpu"))
    with pytest.warns(
        FallbackWarning, match=r"broken \(x\); install it again; running .*int8-cpu.onnx on ONNX Runtime"
    ):
        model = load(bundle, precision="int8")
    with model:
        assert model.backend.name == "onnxruntime"
    with pytest.raises(BackendError, match="broken"):
        load(bundle, precision="int8", backend="openvino")
