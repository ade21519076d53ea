"""Fixtures: a machine with a simulated GPU, TensorRT on it, and bundles with engines for it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.runtime.backends.onnxruntime import backend as onnxruntime_backend
from mtl_deploy.runtime.backends.tensorrt.library import importing
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.cuda import gpu
from tests.fakes.gpu import BATCH_MAX, EngineBundle, Simulation, clear_caches, engine_artifact, record_of

MakeBundle = Callable[..., Path]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Simulation]:
    """A machine with a simulated GPU and no TensorRT; at the end nothing may be left on the GPU."""
    bindings = pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    from tests.fakes.cuda import SimulatedCuda
    from tests.fakes.libcuda import SimulatedLibcuda

    driver = SimulatedCuda()
    simulation = Simulation(driver, SimulatedLibcuda(driver), monkeypatch, tmp_path)
    monkeypatch.setattr(bindings, "driver", simulation.cuda)
    monkeypatch.setattr(gpu, "libcuda", lambda: simulation.libcuda)
    monkeypatch.setattr(
        onnxruntime_backend, "has_gpu", lambda: False
    )  # the real ONNX Runtime would look for a real one
    monkeypatch.setattr(importing, "find_spec", lambda name: getattr(sys.modules.get(name), "__spec__", None))
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    clear_caches()
    yield simulation
    gc.collect()
    clear_caches()
    assert simulation.cuda.violations == []
    if not simulation.may_leak:
        assert not any(simulation.cuda.live().values()), simulation.cuda.live()


@pytest.fixture
def trt(machine: Simulation) -> Any:
    """TensorRT 10.3 on that machine."""
    return machine.install()


@pytest.fixture
def engine_bundle(make_bundle: MakeBundle) -> EngineBundle:
    """A function that makes a tiny bundle with engines for the simulated machine."""

    def make(batch_max: int = BATCH_MAX, *, plans: Callable[[bytes], bytes] | None = None, **changes: Any) -> Path:
        from tests.fakes.tensorrt import make_plan

        options = {
            name: changes.pop(name) for name in ("folder", "outputs", "image_input", "work", "batch") if name in changes
        }
        folder = make_bundle(**options)
        manifest = open_bundle(folder).manifest
        engines = []
        for graph in manifest.artifacts:
            content = (folder / graph.path).read_bytes()
            plan = plans(content) if plans else make_plan(content, batch_max)
            engines.append(engine_artifact(graph, plan, batch_max, record_of(graph.path, content, **changes)))
            (folder / engines[-1].path).write_bytes(plan)
        write_manifest(folder, replace(manifest, artifacts=(*manifest.artifacts, *engines)))
        return folder

    return make
