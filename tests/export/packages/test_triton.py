"""A Triton repository's files; tests/runtime/serving/test_triton.py serves one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.export.cli import main
from mtl_deploy.export.packages.pbtxt import Word, text
from mtl_deploy.export.packages.triton import write_repository
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.errors import IntegrityError, OptionError


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_each_precision_is_a_model_and_encoded_images_have_one(
    make_bundle: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    assert main([str(bundle), "--triton", str(tmp_path / "repository")]) == 0
    assert "tiny, tiny-fp32, tiny-fp16" in capsys.readouterr().out
    assert files(tmp_path / "repository") == {
        "manifest.json",
        "tiny/config.pbtxt",
        "tiny/1/model.py",
        "tiny/1/model.mtl/manifest.json",
        "tiny/1/model.mtl/fp32.onnx",
        "tiny/1/model.mtl/fp16.onnx",
        "tiny-fp32/config.pbtxt",
        "tiny-fp32/race.txt",
        "tiny-fp32/1/model.onnx",
        "tiny-fp16/config.pbtxt",
        "tiny-fp16/race.txt",
        "tiny-fp16/1/model.onnx",
    }
    assert (tmp_path / "repository" / "tiny-fp16" / "race.txt").read_text() == "a\nb\nc\n"
    assert (tmp_path / "repository/tiny-fp32/1/model.onnx").read_bytes() == (bundle / "fp32.onnx").read_bytes()
    with load(tmp_path / "repository" / "tiny" / "1" / "model.mtl") as model:
        assert [task.name for task in model.tasks] == ["age", "gender", "race"]


def test_a_precision_can_be_chosen_and_is_that_of_encoded_images(make_bundle: Any, tmp_path: Path) -> None:
    made = write_repository(make_bundle(), tmp_path / "repository", ["fp16"])
    assert made.models == ("tiny", "tiny-fp16")
    assert 'key: "precision"\n  value {\n    string_value: "fp16"' in (
        tmp_path / "repository/tiny/config.pbtxt"
    ).read_text(encoding="utf-8")
    with pytest.raises(OptionError, match="has no int8 graph or engine"):
        write_repository(make_bundle(tmp_path / "other.mtl"), tmp_path / "second", ["int8"])
    assert not (tmp_path / "second").exists()


def with_engine(bundle: Path, library: str) -> None:
    """Add an entry for an engine, whose file no test runs."""
    import hashlib

    manifest = open_bundle(bundle).manifest
    content = b"an engine"
    (bundle / "fp16.trt").write_bytes(content)
    entry = replace(
        next(artifact for artifact in manifest.artifacts if artifact.path == "fp16.onnx"),
        path="fp16.trt",
        backend="tensorrt",
        batch_max=8,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        details={"library": library, "batch_opt": 4},
    )
    write_manifest(bundle, replace(manifest, artifacts=(*manifest.artifacts, entry)))


def test_engines_are_served_where_triton_has_a_backend(make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle()
    with_engine(bundle, "tensorrt")
    made = write_repository(bundle, tmp_path / "repository")
    assert made.models == ("tiny", "tiny-fp32", "tiny-fp16", "tiny-fp16-tensorrt")
    config = (tmp_path / "repository/tiny-fp16-tensorrt/config.pbtxt").read_text(encoding="utf-8")
    for line in ('backend: "tensorrt"', "max_batch_size: 8", "kind: KIND_GPU", "preferred_batch_size: 4"):
        assert line in config
    assert (tmp_path / "repository/tiny-fp16-tensorrt/1/model.plan").read_bytes() == b"an engine"


def test_an_engine_of_tensorrt_rtx_is_left_out_and_said(make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle()
    with_engine(bundle, "tensorrt-rtx")
    made = write_repository(bundle, tmp_path / "repository")
    assert made.models == ("tiny", "tiny-fp32", "tiny-fp16")
    (said,) = made.left_out
    assert "fp16.trt" in said


def test_a_damaged_graph_is_not_passed_on(make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle()
    (bundle / "fp16.onnx").write_bytes(b"x" * 100)
    with pytest.raises(IntegrityError):
        write_repository(bundle, tmp_path / "repository")
    assert list(tmp_path.iterdir()) == [bundle]


def test_a_repository_is_replaced_only_when_forced(make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle()
    write_repository(bundle, tmp_path / "repository")
    with pytest.raises(OptionError, match=r"exists; .* choose another place with --triton$"):
        write_repository(bundle, tmp_path / "repository")
    write_repository(bundle, tmp_path / "repository", ["fp32"], force=True)
    listed = json.loads((tmp_path / "repository" / "manifest.json").read_text(encoding="utf-8"))
    assert listed["triton_models"] == ["tiny", "tiny-fp32"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="not a bundle"):
        write_repository(bundle, tmp_path / "mine", force=True)


def test_text_is_escaped() -> None:
    assert text({"name": 'a"b\\é\n', "kind": Word("KIND_CPU"), "on": True, "dims": [1, -1], "of": [{"x": 1}]}) == (
        'name: "\\141\\042\\142\\134\\303\\251\\012"\nkind: KIND_CPU\non: true\ndims: 1\ndims: -1\nof {\n  x: 1\n}\n'
    )
