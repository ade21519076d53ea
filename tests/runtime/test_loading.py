from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mtl_deploy.runtime import BackendError, BundleError, FallbackWarning, IntegrityError, NoGpuError, OptionError, load
from mtl_deploy.runtime.bundle.manifest import MANIFEST
from mtl_deploy.runtime.bundle.signing import SIGNATURE_FILE
from mtl_deploy.runtime.cuda import gpu
from tests.fakes.gpu import IMAGES, EngineBundle, Simulation, change_artifacts, check, clear_caches

LIBRARIES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.fixture
def without_gpu() -> None:
    """This machine as it is; tests that need it to have no GPU skip where it has one."""
    clear_caches()
    if gpu.has_gpu():
        pytest.skip("this machine has a GPU")


@pytest.mark.usefixtures("without_gpu")
def test_a_machine_without_a_driver_falls_back_and_says_so(engine_bundle: EngineBundle, graphs_on: str) -> None:
    folder = engine_bundle()
    with pytest.warns(FallbackWarning) as caught:
        model = load(folder)
    with model:
        check(model(IMAGES[:3]), IMAGES[:3])
        assert model.backend.name == graphs_on
    assert [str(warning.message) for warning in caught] == [
        f"{folder}/fp16.trt: built for SM 8.7 with TensorRT 10.3.0; this machine: no CUDA driver; running {folder}/fp32.onnx on "
        f"{LIBRARIES[graphs_on]}"
    ]
    assert caught[0].filename == __file__


@pytest.mark.usefixtures("without_gpu")
def test_a_machine_without_a_driver_refuses_an_engine_that_is_asked_for(engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    with pytest.raises(BackendError, match="no CUDA driver"):
        load(folder, backend="tensorrt")
    with pytest.raises(NoGpuError, match="no CUDA driver"):
        load(folder / "fp16.trt")


@pytest.mark.parametrize("options", [{"backend": "onnxruntime"}, {"providers": ["CPU"]}])
def test_onnx_runtime_that_is_asked_for_warns_of_nothing(
    machine: Simulation, engine_bundle: EngineBundle, options: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with load(engine_bundle(), **options) as model:
            assert model.backend.name == "onnxruntime"


def test_an_engine_that_fits_runs_without_a_warning(trt: Any, engine_bundle: EngineBundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with load(engine_bundle()) as model:
            check(model(IMAGES[:3]), IMAGES[:3])
            assert "fp16.trt" in repr(model)


def test_an_engine_that_the_library_refuses_falls_back(trt: Any, engine_bundle: EngineBundle, graphs_on: str) -> None:
    folder = engine_bundle(plans=lambda graph: b"NOPLAN")
    expected = rf"refuses it: Serialization .*; running .*fp32\.onnx on {LIBRARIES[graphs_on]}"
    with pytest.warns(FallbackWarning, match=expected):
        model = load(folder)
    with model:
        check(model(IMAGES[:3]), IMAGES[:3])
        assert model.artifact is not None
        assert model.artifact.path == "fp32.onnx"


def test_missing_cuda_bindings_fall_back(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    clear_caches()
    with pytest.warns(FallbackWarning, match="running an engine needs cuda-bindings"), load(engine_bundle()) as model:
        check(model(IMAGES[:3]), IMAGES[:3])


@pytest.mark.parametrize("options", [{"backend": "tensorrt"}, {"backend": "tensorrt", "precision": "fp32"}])
def test_an_engine_that_is_asked_for_never_falls_back(
    trt: Any, engine_bundle: EngineBundle, options: dict[str, Any]
) -> None:
    with pytest.raises(BackendError, match="refuses it"):
        load(engine_bundle(plans=lambda graph: b"NOPLAN"), **options)


def test_an_engine_that_is_named_never_falls_back(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(plans=lambda graph: b"NOPLAN")
    with pytest.raises(BackendError, match="refuses it"):
        load(folder / "fp32.trt")


def test_a_refused_engine_without_a_graph_keeps_its_reason(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(plans=lambda graph: b"NOPLAN")
    change_artifacts(folder, lambda artifact: artifact.backend == "tensorrt")
    with pytest.raises(BackendError, match="refuses it"):
        load(folder)


def test_a_changed_engine_does_not_fall_back(trt: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle()
    (folder / "fp16.trt").write_bytes(b"SIMPLAN")
    with pytest.raises(IntegrityError):
        load(folder)
    assert trt.deserialized == []


def test_an_engine_outside_its_bundle_is_refused(trt: Any, engine_bundle: EngineBundle, tmp_path: Path) -> None:
    lone = tmp_path / "lone.trt"
    lone.write_bytes((engine_bundle() / "fp16.trt").read_bytes())
    with pytest.raises(BundleError, match=r"lone\.trt: an engine runs only from its bundle"):
        load(lone)
    assert trt.deserialized == []


def test_a_file_takes_no_choice_among_files(trt: Any, engine_bundle: EngineBundle) -> None:
    file = engine_bundle() / "fp16.trt"
    with pytest.raises(OptionError, match="precision='fp32' chooses among those of a bundle"):
        load(file, precision="fp32")
    with pytest.raises(OptionError, match="runs on tensorrt, not on backend='onnxruntime'"):
        load(file, backend="onnxruntime")


def test_tasks_that_are_chosen_at_loading_are_given(trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle(), tasks=("race", "age")) as model:
        found = model(IMAGES[:2])
        assert sorted(found) == ["age", "race"]
        check(found, IMAGES[:2])


def test_an_engine_of_another_network_is_refused(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    from tests.fakes.tensorrt import make_plan

    folder = engine_bundle()
    graph = (folder / "fp32.onnx").read_bytes()
    other = engine_bundle(folder=folder.with_name("other.mtl"), plans=lambda content: make_plan(graph, 8))
    with pytest.raises(BundleError, match="its inputs and outputs are not those of its metadata"):
        load(other / "separate" / "age.trt")


# TensorRT-RTX's compiled kernels

RTX = {"library": "tensorrt-rtx", "version": "1.7.1.116"}


@pytest.fixture
def rtx(machine: Simulation) -> Any:
    return machine.install("1.7.1.116", rtx=True)


def run_batches(folder: Path, **options: Any) -> None:
    with load(folder, **options) as model:
        for batch in (1, 2, 2, 2):
            check(model(IMAGES[:batch]), IMAGES[:batch])


def test_compiled_kernels_are_kept_beside_the_engine_and_used_again(rtx: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(**RTX)
    before = {file.name for file in folder.iterdir()}
    run_batches(folder)
    assert {file.name for file in folder.iterdir()} - before == {"fp16.trt.cache"}
    assert rtx.compiled == [1, 2]
    run_batches(folder)
    assert rtx.compiled == [1, 2]


def test_compiled_kernels_may_be_kept_elsewhere(rtx: Any, engine_bundle: EngineBundle, tmp_path: Path) -> None:
    folder, file = engine_bundle(**RTX), tmp_path / "kernels"
    run_batches(folder, runtime_cache=file)
    assert file.read_bytes().startswith(b"CACHE")
    assert not (folder / "fp16.trt.cache").exists()


def test_compiled_kernels_are_not_kept_where_that_is_turned_off(rtx: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(**RTX)
    before = sorted(folder.iterdir())
    run_batches(folder, runtime_cache=False)
    assert sorted(folder.iterdir()) == before


def test_compiled_kernels_are_not_signed_so_a_key_leaves_them_alone(
    rtx: Any, engine_bundle: EngineBundle, tmp_path: Path
) -> None:
    folder = engine_bundle(**RTX)
    key = Ed25519PrivateKey.generate()
    (folder / SIGNATURE_FILE).write_bytes(key.sign((folder / MANIFEST).read_bytes()))
    public = key.public_key().public_bytes_raw()
    before = sorted(folder.iterdir())
    (folder / "fp16.trt.cache").write_bytes(b"CACHE of an attacker")
    run_batches(folder, verify_key=public)
    (folder / "fp16.trt.cache").unlink()
    run_batches(folder, verify_key=public)
    assert sorted(folder.iterdir()) == before
    run_batches(folder, verify_key=public, runtime_cache=tmp_path / "kernels")
    assert (tmp_path / "kernels").exists()


def test_a_folder_that_cannot_be_written_to_is_no_error(
    rtx: Any, engine_bundle: EngineBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mtl_deploy.runtime.backends.tensorrt.kernel_cache.tempfile.mkstemp", read_only)
    folder = engine_bundle(**RTX)
    before = sorted(folder.iterdir())
    run_batches(folder)
    run_batches(folder)
    assert sorted(folder.iterdir()) == before
    assert rtx.compiled == [1, 2, 1, 2]  # nothing was kept


def test_a_full_disk_leaves_no_half_file(
    rtx: Any, engine_bundle: EngineBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Any:
        raise OSError(28, "No space left on device")

    folder = engine_bundle(**RTX)
    before = sorted(folder.iterdir())
    monkeypatch.setattr(Path, "replace", full)
    run_batches(folder)
    assert sorted(folder.iterdir()) == before


def test_a_damaged_cache_is_not_used_and_written_anew(rtx: Any, engine_bundle: EngineBundle) -> None:
    folder = engine_bundle(**RTX)
    (folder / "fp16.trt.cache").write_bytes(b"damaged")
    run_batches(folder)
    assert (folder / "fp16.trt.cache").read_bytes() == b"CACHE\x01\x02"
    assert rtx.compiled == [1, 2]


@pytest.mark.parametrize("options", [{"mode": "throughput"}, {"arithmetic": "bf16"}], ids=str)
def test_an_engine_has_no_modes_of_a_processor(trt: Any, engine_bundle: EngineBundle, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="is for graphs on processors"):
        load(engine_bundle(), **options)
