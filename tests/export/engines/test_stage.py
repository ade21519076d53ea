"""Engines in a bundle: built with an export, added to a bundle, replaced, refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_graphs import needs_rtx

from mtl_deploy.export.cli import main
from mtl_deploy.runtime import BackendError, FallbackWarning, load
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, digest, open_bundle
from mtl_deploy.runtime.cuda.gpu import has_gpu

TASKS = ("age", "gender", "race")
no_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


def snapshot(bundle: Path) -> dict[str, str]:
    return {str(file.relative_to(bundle)): digest(file) for file in bundle.rglob("*") if file.is_file()}


def engines(bundle: Path) -> dict[str, Artifact]:
    return {item.path: item for item in open_bundle(bundle).manifest.artifacts if item.backend == "tensorrt"}


@pytest.fixture(scope="module")
def engine_bundle(article_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The article's bundle, with engines."""
    target = tmp_path_factory.mktemp("engines") / "model.mtl"
    assert main([str(article_bundle), "--batch", "1:4:16", "-o", str(target), "-q"]) == 0
    return target


@needs_rtx
def test_every_graph_gets_an_engine_at_identical_settings(engine_bundle: Path) -> None:
    manifest = open_bundle(engine_bundle).manifest
    graphs = {item.path: item for item in manifest.artifacts if item.backend == "onnxruntime"}
    found = engines(engine_bundle)
    assert set(found) == {path.removesuffix(".onnx") + ".rtx.trt" for path in graphs}
    for path, engine in found.items():
        graph = graphs[str(engine.details["source"])]
        record = EngineRecord.from_details(engine.details, path)
        assert (engine.role, engine.tasks, engine.precision) == (graph.role, graph.tasks, graph.precision)
        assert (engine.batch_min, record.batch_opt, engine.batch_max) == (1, 4, 16)
        assert record.source_sha256 == graph.sha256
        assert engine.sha256 == digest(engine_bundle / path)
        assert engine.size_bytes == (engine_bundle / path).stat().st_size
        assert next(iter(engine.details["layers"])) == engine.precision
        assert engine.details["build_seconds"] > 0
    settings = [engine.details["settings"] for engine in found.values()]
    assert all(each == settings[0] for each in settings)


@needs_rtx
@no_gpu
def test_an_engine_that_has_not_run_says_so(engine_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for engine in engines(engine_bundle).values():
        assert engine.details["verified"] == "this machine: no CUDA driver"
    assert main([str(engine_bundle), "--verify", "-q"]) == 0
    out = capsys.readouterr().out
    assert "Engine fp16.rtx.trt: built for SM 8.0 and later with TensorRT-RTX" in out
    assert "batches 1 to 16, tuned for 4; " in out
    assert " layers in fp16, 3 in fp32; not run yet: this machine: no CUDA driver." in out


@needs_rtx
@no_gpu
def test_a_bundle_with_engines_falls_back_and_says_why(engine_bundle: Path) -> None:
    reason = r"fp16\.rtx\.trt: built for SM 8\.0 .*; this machine: no CUDA driver; running .*fp32\.onnx"
    with pytest.warns(FallbackWarning, match=reason):
        model = load(engine_bundle)
    with model:
        assert model.backend.name == "onnxruntime"
    with pytest.raises(BackendError, match="this machine: no CUDA driver"):
        load(engine_bundle, backend="tensorrt")
    with pytest.raises(BackendError, match="this machine: no CUDA driver"):
        load(engine_bundle / "separate" / "age.rtx.trt")


@needs_rtx
def test_an_export_builds_engines_too(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.mtl"
    arguments = ["--image-size", "64x64", "--threads", "1", "--no-separate", "--precision", "fp32", "-o", str(target)]
    assert main([str(article_checkpoint), *arguments, "--engine", "tensorrt-rtx", "--gpu", "sm86,sm89"]) == 0
    assert list(engines(target)) == ["fp32.rtx.trt"]
    assert engines(target)["fp32.rtx.trt"].details["compute_capabilities"] == ["8.6", "8.9"]
    assert "built for SM 8.6, 8.9 with TensorRT-RTX" in capsys.readouterr().out


@needs_rtx
def test_new_engines_replace_the_old_ones_and_leave_the_source_alone(engine_bundle: Path, tmp_path: Path) -> None:
    before = snapshot(engine_bundle)
    copy = tmp_path / "copy.mtl"
    assert main([str(engine_bundle), "--batch", "2", "-o", str(copy), "-q"]) == 0
    assert snapshot(engine_bundle) == before  # files are linked, so writing into one would change both
    assert {(item.batch_min, item.batch_max) for item in engines(copy).values()} == {(2, 2)}
    assert len(engines(copy)) == len(engines(engine_bundle))
    assert main([str(copy), "--batch", "1:1:4", "-q"]) == 0  # in its place
    assert {(item.batch_min, item.batch_max) for item in engines(copy).values()} == {(1, 4)}
    for path, item in engines(copy).items():
        assert digest(copy / path) == item.sha256
    assert main([str(engine_bundle), "-o", str(copy), "-q"]) == 2  # not without --force


@needs_rtx
def test_a_build_that_fails_leaves_the_bundle_as_it_was(
    article_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "model.mtl"
    shutil.copytree(article_bundle, bundle)
    before = snapshot(bundle)
    assert main([str(bundle), "--gpu", "sm99"]) == 2
    assert "--gpu sm99: TensorRT-RTX" in capsys.readouterr().err
    assert snapshot(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.mtl"]


@needs_rtx
def test_a_damaged_graph_is_not_built(article_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "model.mtl"
    shutil.copytree(article_bundle, bundle)
    file = bundle / "separate" / "race.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    assert main([str(bundle)]) == 2
    assert "race.onnx: SHA-256 is" in capsys.readouterr().err


@needs_rtx
def test_a_graph_of_a_fixed_batch_gets_a_static_engine(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(batch=3, precisions=("fp32",))
    assert main([str(bundle), "--batch", "1:1:8"]) == 2
    assert "--batch 1:1:8: the graph takes only batches of 3; leave --batch out" in capsys.readouterr().err
    assert main([str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["manifest"]["artifacts"]
    assert {(item["batch_min"], item["batch_max"]) for item in found} == {(3, 3)}
    assert {item["details"]["batch_opt"] for item in found if item["backend"] == "tensorrt"} == {3}


@needs_rtx
def test_building_from_a_bundle_needs_neither_torch_nor_onnx(make_bundle: Callable[..., Path]) -> None:
    """As on a device: both are made unimportable."""
    bundle = make_bundle()
    code = f"""
import sys
for name in ("torch", "onnx", "onnx_ir", "onnxruntime"):
    sys.modules[name] = None
from mtl_deploy.export.cli import main
sys.exit(main([{str(bundle)!r}, "--engine", "tensorrt-rtx", "-q"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(engines(bundle)) == 8
    assert "Engine fp32.rtx.trt: " in result.stdout


def test_an_option_for_checkpoints_is_refused_for_a_bundle(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), "--image-size", "32x32"]) == 2
    assert "is a bundle: its graphs already exist, so --image-size has no effect" in capsys.readouterr().err


def test_a_bundle_without_engines_has_none_to_verify(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    before = snapshot(bundle)
    assert main([str(bundle), "--verify"]) == 2
    assert "has no engines to verify; build some with --engine" in capsys.readouterr().err
    assert snapshot(bundle) == before
    assert main([str(bundle), "--engine", "none"]) == 2
    assert "is already a bundle; say with --engine how to build engines for it" in capsys.readouterr().err


@no_gpu
def test_tensorrt_itself_needs_the_gpu_and_says_what_to_do(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), "--engine", "tensorrt"]) == 2
    err = capsys.readouterr().err
    assert (
        "TensorRT builds on the GPU that the engine is for, and this machine has no CUDA driver; run mtl-export BUNDLE"
        in err
    )


def test_without_a_library_an_export_says_how_to_get_engines(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl_deploy.export.engines.bundle_engines.installed", list)
    target = tmp_path / "model.mtl"
    arguments = ["--image-size", "64x64", "--threads", "1", "--no-separate", "--precision", "fp32", "-o", str(target)]
    assert main([str(article_checkpoint), *arguments]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "No engines" in line]
    assert note.startswith("note: No engines: neither TensorRT nor TensorRT-RTX is installed (pip install ")
    assert engines(target) == {}
    assert main([str(target)]) == 2  # nothing else was asked for
    assert "No engines: neither" in capsys.readouterr().err


def test_targets_are_checked_before_anything_is_built(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    before = snapshot(bundle)
    assert main([str(bundle), "--check-target", "jetpack-6.0,tensorrt-10.3", "--engine", "none"]) == 0
    assert (
        "Target jetpack-6.0 (TensorRT 8.6.2) reads all 8 graphs.\nTarget tensorrt-10.3 (TensorRT 10.3) reads all 8 graphs.\n"
        in capsys.readouterr().out
    )
    assert snapshot(bundle) == before
    assert main([str(bundle), "--check-target", "jetpack-66"]) == 2
    assert "did you mean jetpack-6.2?" in capsys.readouterr().err


def test_a_target_that_does_not_read_the_graphs_ends_the_export(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--image-size", "64x64", "--threads", "1", "--opset", "18", "-o", str(tmp_path / "model.mtl")]
    assert main([str(article_checkpoint), *arguments, "--check-target", "jetpack-6.0"]) == 2
    err = capsys.readouterr().err
    assert "error: jetpack-6.0: fp32.onnx and 3 more graphs: opset 18: " in err
    assert "export again with --opset 17" in err
    assert list(tmp_path.iterdir()) == []
