"""Engines built anew with the settings of their record. TensorRT-RTX builds them here, without a GPU."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.contestants.peers import builds
from mtl_deploy.bench.contestants.peers.builds import build_options, make_builds
from mtl_deploy.export.cli import _parser, main
from mtl_deploy.export.engines.cli import engine_options
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, open_bundle
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import BackendError, BundleError, OptionError
from tests.conftest import MakeBundle

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: mtl-deploy[tensorrt-rtx]"
)
QUIET = Progress(quiet=True)


def engine(library: str = "tensorrt", settings: dict[str, Any] | None = None, **changes: Any) -> Artifact:
    record = EngineRecord(library, "10.3.0", ("8.7",), "Orin", "12.6", "none", False, 4, "fp16.onnx", "0" * 64)
    record = replace(record, rest={"settings": settings or {"tf32": False}}, **changes)
    return Artifact(
        path="fp16.trt", role="shared", tasks=("age",), precision="fp16", backend="tensorrt", batch_min=1, batch_max=16, opset=None,
        sha256="", size_bytes=1, parameters=1, multiply_adds=1, details=record.to_details(),
    )  # fmt: skip


def engines(bundle: Path) -> dict[str, Artifact]:
    found = open_bundle(bundle).manifest.artifacts
    return {artifact.path: artifact for artifact in found if artifact.backend == "tensorrt"}


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [
        (engine(), EngineOptions("tensorrt", batch=(1, 4, 16), precisions=("fp16",))),
        (
            engine("tensorrt-rtx", compute_capabilities=("8.6", "12.0")),
            EngineOptions("tensorrt-rtx", gpus=("sm86", "sm120"), batch=(1, 4, 16), precisions=("fp16",)),
        ),
        (
            engine(
                settings={
                    "tf32": True,
                    "workspace_mib": 256,
                    "optimization_level": 5,
                    "threads": 2,
                    "tactic_sources": ["cublas_lt", "jit_convolutions"],
                },
                version_compatible=True,
                hardware_compatibility="ampere_plus",
            ),
            EngineOptions(
                "tensorrt",
                batch=(1, 4, 16),
                workspace_mib=256,
                optimization_level=5,
                version_compatible=True,
                hardware_compatibility="ampere_plus",
                tactic_sources=("cublas_lt", "jit_convolutions"),
                threads=2,
                tf32=True,
                precisions=("fp16",),
            ),
        ),
    ],
)
def test_the_options_are_those_that_the_record_tells(artifact: Artifact, expected: EngineOptions) -> None:
    options = build_options(artifact, "fp16.trt")
    assert engine_options(_parser().parse_args(["model.mtl", *options]), (artifact.precision,)) == expected
    assert "--timing-cache" not in options


def test_a_graph_is_not_built(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle())
    with pytest.raises(OptionError, match=r"fp32\.onnx is a graph, which is not built"):
        make_builds(bundle.path, bundle.manifest.artifacts[0], 2, tmp_path, QUIET)
    with pytest.raises(OptionError, match="--builds 0"):
        make_builds(bundle.path, engine(), 0, tmp_path, QUIET)


def test_a_malformed_record_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"fp16\.trt: malformed record"):
        make_builds(make_bundle(), replace(engine(), details={}), 1, tmp_path, QUIET)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="TensorRT can build on a GPU")
def test_a_library_that_cannot_build_here_is_told(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the engines were not built: TensorRT builds on the GPU"):
        make_builds(make_bundle(), engine(), 1, tmp_path, QUIET)
    assert list(tmp_path.glob("build*")) == []


@needs_rtx
def test_two_builds_are_two_bundles_like_the_first(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(work=2)
    assert (
        main([str(bundle), "--engine", "tensorrt-rtx", "--precision", "fp32", "--batch", "1:2:4", "--tf32", "-q"]) == 0
    )
    first = engines(bundle)
    (bundle / "fp32.rtx.trt.cache").write_bytes(b"kernels of an earlier run")
    before = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in bundle.rglob("*") if file.is_file()}
    commands: list[list[str]] = []
    real = builds.run

    def noted(module: str, arguments: list[str]) -> Any:
        commands.append(arguments)
        return real(module, arguments)

    monkeypatch.setattr(builds, "run", noted)
    made = make_builds(bundle, first["fp32.rtx.trt"], 2, tmp_path, QUIET)
    assert [path.name for path in made] == ["build1.mtl", "build2.mtl"]
    assert {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in before} == before
    assert not any("--timing-cache" in command for command in commands)
    for path in made:
        found = engines(path)
        assert found.keys() == first.keys()
        assert len(found) == 4
        for name, one in found.items():
            assert open_bundle(path).read(one)  # its SHA-256 is the manifest's
            assert not (path / name).samefile(bundle / name)
            assert (one.batch_min, one.batch_max) == (1, 4)
            for word in ("library", "version", "compute_capabilities", "batch_opt", "source", "source_sha256"):
                assert one.details[word] == first[name].details[word]
            assert one.details["settings"] == {"tf32": True}
            assert one.details["build_seconds"] > 0
        assert not list(path.rglob("*.cache"))
    assert not (made[0] / "fp32.rtx.trt").samefile(made[1] / "fp32.rtx.trt")
