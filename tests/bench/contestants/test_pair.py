"""Which artifacts of a bundle with engines are compared, on a simulated GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.pair import find_pair
from mtl_deploy.runtime.bundle.manifest import Artifact
from tests.fakes.gpu import change_artifacts

EngineBundle = Callable[..., Path]
QUICK = ["--duration", "0.2", "--threads", "1", "--quiet", "--no-memory"]


def without(folder: Path, unwanted: Callable[[Artifact], bool]) -> Path:
    change_artifacts(folder, lambda artifact: not unwanted(artifact))
    return folder


def test_an_engine_of_another_library_is_not_compared_with(gpu: Any, engine_bundle: EngineBundle) -> None:
    """A bundle may hold engines of both libraries side by side."""
    bundle = engine_bundle()
    manifest = json.loads((bundle / "manifest.json").read_text())
    foreign = []
    for entry in manifest["artifacts"]:
        if entry["backend"] == "tensorrt":
            path = entry["path"].replace(".trt", ".rtx.trt")
            (bundle / path).write_bytes((bundle / entry["path"]).read_bytes())
            foreign.append(entry | {"path": path, "details": entry["details"] | {"library": "tensorrt-rtx"}})
    manifest["artifacts"] = foreign + manifest["artifacts"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for path in (bundle, bundle / "fp16.trt", bundle / "separate" / "race.fp16.trt"):
        pair = find_pair(path, None, None)
        assert [artifact.path for artifact in (pair.shared, *pair.separate)] == [
            "fp16.trt",
            *(f"separate/{task}.fp16.trt" for task in ("age", "gender", "race")),
        ]


def test_separate_engines_for_the_same_gpu_come_first(gpu: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle()
    manifest = json.loads((bundle / "manifest.json").read_text())
    elsewhere = [
        entry | {"path": f"other/{entry['path']}", "details": entry["details"] | {"compute_capabilities": ["8.9"]}}
        for entry in manifest["artifacts"]
        if entry["backend"] == "tensorrt"
    ]
    manifest["artifacts"] = elsewhere + manifest["artifacts"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    pair = find_pair(bundle, None, None)
    assert not any(artifact.path.startswith("other/") for artifact in (pair.shared, *pair.separate))


def test_without_separate_engines_a_bundle_has_its_graphs_measured(gpu: Any, engine_bundle: EngineBundle) -> None:
    bundle = without(engine_bundle(), lambda a: a.backend == "tensorrt" and a.tasks == ("age",))
    pair = find_pair(bundle, None, None)
    assert pair.shared.backend == "onnxruntime"
    assert pair.misfit is not None
    assert "no separate fp16 engine of age" in pair.misfit


@pytest.mark.parametrize("arguments", [[], ["--backend", "tensorrt"]], ids=["engine", "backend"])
def test_without_separate_engines_an_engine_that_was_asked_for_is_an_error(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    bundle = without(engine_bundle(), lambda a: a.backend == "tensorrt" and a.role == "separate")
    path = bundle if arguments else bundle / "fp16.trt"
    assert main([str(path), *QUICK, *arguments]) == 2
    assert "no separate fp16 engine of age, gender, race to compare with; build them" in capsys.readouterr().err


def test_a_separate_engine_without_a_shared_one_is_an_error(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = without(engine_bundle(), lambda a: a.backend == "tensorrt" and a.role == "shared")
    assert main([str(bundle / "separate" / "age.trt"), *QUICK]) == 2
    assert "no shared fp32 engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider", "CPU"], "is an engine, and --provider is ONNX Runtime's"),
        (["--backend", "onnxruntime"], "runs on tensorrt, --backend says onnxruntime"),
        (["--precision", "fp32"], "is fp16, --precision says fp32"),
        (["--batch", "1,9"], "--batch 9: fp16.trt takes 1 to 8"),
    ],
    ids=["provider", "backend", "precision", "batch"],
)
def test_options_that_do_not_fit_an_engine_are_one_line(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(engine_bundle() / "fp16.trt"), *QUICK, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
