"""Engines are verified beside PyTorch's outputs. The GPU is a simulated one, the numbers are a real graph's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mtl_deploy.export.cli import main
from mtl_deploy.export.engines.check import verify_engines
from mtl_deploy.export.verification.images import REFERENCES, reference_images
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import VerificationError
from tests.fakes.machine import engine_bundle, machine

__all__ = ["engine_bundle", "machine"]
QUIET = Progress(quiet=True)


@pytest.fixture
def referenced(engine_bundle: Callable[..., Path]) -> Callable[..., Bundle]:
    """A function that makes a bundle with engines and a reference."""

    def make(**options: Any) -> Bundle:
        folder = engine_bundle(**options)
        manifest = open_bundle(folder).manifest
        images = reference_images(manifest.signature, None)
        with load(folder, backend="onnxruntime", precision="fp32") as model:
            content, record = reference.pack(images, model(images))
        (folder / reference.PATH).write_bytes(content)
        write_manifest(folder, replace(manifest, reference=record))
        return open_bundle(folder)

    return make


def engines(bundle: Bundle) -> list[Any]:
    return [item for item in bundle.manifest.artifacts if item.backend == "tensorrt"]


def test_engines_that_match_are_verified_task_by_task(machine: Any, referenced: Callable[..., Bundle]) -> None:
    machine.install()
    bundle = referenced()
    found, rows = verify_engines(bundle, engines(bundle), {}, QUIET)
    assert [item.details["verified"] for item in found] == [True] * 8
    expected = {(item.path, task) for item in found for task in item.tasks}
    assert {(row.artifact, row.task) for row in rows} == expected
    assert all(row.samples == REFERENCES and row.passed for row in rows)
    assert {row.agreement for row in rows if row.task == "age"} == {None}
    assert {row.agreement for row in rows if row.task != "age"} == {1.0}


def damaged(content: bytes) -> bytes:
    """A plan whose age is a quarter more than it should be."""
    from tests.fakes.tensorrt import make_plan

    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.name == "age.scale":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1.25) * numpy_helper.to_array(tensor), tensor.name))
    return make_plan(model.SerializeToString(), 8)


def test_an_engine_that_does_not_match_is_named_with_the_figures(
    machine: Any, referenced: Callable[..., Bundle]
) -> None:
    machine.install()
    bundle = referenced(plans=damaged)
    with pytest.raises(VerificationError, match=r"fp32\.trt, task 'age': error [\d.]+ \(allowed [\d.]+\)") as error:
        verify_engines(bundle, engines(bundle), {}, QUIET)
    assert "gender" not in str(error.value)
    verify_engines(bundle, engines(bundle), {"fp32": 0.99, "fp16": 0.99}, QUIET)  # the user's own tolerance


def test_tf32_is_allowed_its_ten_bits(machine: Any, referenced: Callable[..., Bundle]) -> None:
    machine.install()
    bundle = referenced()
    (engine,) = [item for item in engines(bundle) if item.path == "fp32.trt"]
    wide = replace(engine, details=engine.details | {"settings": {"tf32": True}})
    (_, plain), (_, allowed) = (verify_engines(bundle, [item], {}, QUIET) for item in (engine, wide))
    assert allowed[0].tolerance == pytest.approx(10 * plain[0].tolerance)


def test_engines_that_do_not_fit_say_why_and_are_not_run(
    machine: Any, referenced: Callable[..., Bundle], engine_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    trt = machine.install("8.6.0")
    bundle = referenced()
    found, rows = verify_engines(bundle, engines(bundle), {}, QUIET)
    assert rows == []
    assert {item.details["verified"] for item in found} == {"this machine: TensorRT 8.6.0"}
    without = open_bundle(engine_bundle(folder=tmp_path / "without.mtl"))
    found, _ = verify_engines(without, engines(without)[:1], {}, QUIET)
    assert found[0].details["verified"] == "the bundle has no reference"
    assert trt.deserialized == []


def test_the_command_verifies_a_bundles_engines_and_records_it(
    machine: Any, referenced: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    machine.install()
    bundle = referenced()
    assert main([str(bundle.path), "--verify", "-q"]) == 0
    out = capsys.readouterr().out
    assert "Engine fp16.trt: built for SM " in out
    assert "; verified on this GPU." in out
    manifest = open_bundle(bundle.path).manifest
    assert {row["artifact"] for row in manifest.verification} == {item.path for item in engines(bundle)}
    assert all(np.isfinite(row["max_error"]) for row in manifest.verification)
