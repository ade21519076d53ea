"""Engines of dense tasks: outputs of several types and dimensions, and of sizes that the input decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import DeviceArray, ImageError, RunError, load
from mtl_deploy.runtime.backends.tensorrt.timing import Timeline
from mtl_deploy.runtime.backends.tensorrt.together import Together
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from tests.fakes.fork import ForkingCuda
from tests.fakes.gpu import BATCH_MAX, engine_artifact, record_of
from tests.networks.dense_bundle import SIZE, write_dense_bundle

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (2, 64, 32, 3), dtype=np.uint8)


def bundle_with_engines(folder: Path, **options: Any) -> Path:
    """Write a dense bundle, and an engine of each graph for the simulated machine."""
    from tests.fakes.tensorrt import make_plan

    write_dense_bundle(folder, **options)
    manifest = open_bundle(folder).manifest
    engines = []
    for graph in manifest.artifacts:
        content = (folder / graph.path).read_bytes()
        plan = make_plan(content, BATCH_MAX)
        engines.append(engine_artifact(graph, plan, BATCH_MAX, record_of(graph.path, content)))
        (folder / engines[-1].path).write_bytes(plan)
    write_manifest(folder, replace(manifest, artifacts=(*manifest.artifacts, *engines)))
    return folder


def check(found: dict[str, Any], truth: dict[str, np.ndarray]) -> None:
    assert list(found) == list(truth)
    for name, values in found.items():
        assert values.dtype == truth[name].dtype
        np.testing.assert_array_equal(values, truth[name])


OPTIONS: dict[str, dict[str, Any]] = {
    "uint8": {},
    "int32": {"classes": 300},
    "four dimensions": {"outputs": "logits"},
    "free sizes": {"multiple": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_engine_gives_what_its_graph_gives(trt: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    bundle = bundle_with_engines(tmp_path / "a.mtl", **options)
    with load(bundle, backend="onnxruntime") as graph, load(bundle, backend="tensorrt") as engine:
        truth = graph(IMAGES)
        for _ in range(4):  # plain, recorded, replayed
            check(engine(IMAGES), truth)
        buffers = {name: np.zeros_like(values) for name, values in truth.items()}
        found = engine(IMAGES, out=buffers)
        assert all(found[name] is buffers[name] for name in buffers)
        check(found, truth)
        pinned = engine.pinned(3)
        assert pinned.shape == IMAGES.shape
        pinned[...] = IMAGES
        check(engine(pinned), truth)
        for one, other in zip(engine.predict(IMAGES), graph.predict(IMAGES), strict=True):
            assert one == other


def test_an_engine_of_free_sizes_takes_them_in_any_order(trt: Any, tmp_path: Path) -> None:
    bundle = bundle_with_engines(tmp_path / "a.mtl", multiple=4)
    with load(bundle, backend="onnxruntime") as graph, load(bundle, backend="tensorrt", contexts=1) as engine:
        for images in (IMAGES, OTHER, IMAGES[:1], OTHER, OTHER, IMAGES, IMAGES):
            check(engine(images), graph(images))
        photos = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((61, 47), (36, 52), (61, 47))]
        assert engine.predict(photos) == graph.predict(photos)
        with pytest.raises(RunError, match="outside the profile"):
            engine.backend.run({"image": np.repeat(OTHER, 8, axis=0)}, ["seg"])
        check(engine(OTHER), graph(OTHER))


def test_outputs_stay_on_the_gpu_in_their_own_types(trt: Any, tmp_path: Path) -> None:
    import ctypes

    bundle = bundle_with_engines(tmp_path / "a.mtl", multiple=4)
    with load(bundle, backend="onnxruntime") as graph, load(bundle, backend="tensorrt") as engine:
        for images in (IMAGES, OTHER):
            truth, found = graph(images), engine(images, on_device=True)
            for name, array in found.items():
                assert isinstance(array, DeviceArray)
                assert (array.shape, array.dtype) == (truth[name].shape, truth[name].dtype)
                held = ctypes.string_at(array.address, truth[name].nbytes)  # simulated memory is the host's
                np.testing.assert_array_equal(np.frombuffer(held, array.dtype).reshape(array.shape), truth[name])
            again = engine(images, out=found)
            assert all(again[name] is found[name] for name in found)
            wrong = engine(images[:1], on_device=True)
            with pytest.raises(ImageError, match="on the GPU for 'seg'; expected uint8"):
                engine(images, out={"seg": wrong["seg"]})
            del found, again, wrong, array


def test_measurements_hold_dense_outputs(machine: Any, trt: Any, tmp_path: Path) -> None:
    ForkingCuda.extend(machine.cuda)
    bundle = bundle_with_engines(tmp_path / "a.mtl", multiple=4)
    with (
        load(bundle, backend="onnxruntime") as graph,
        load(bundle, backend="tensorrt") as engine,
        load(bundle / "separate" / "seg.trt") as seg,
        load(bundle / "separate" / "depth.trt") as depth,
    ):
        truth = graph(OTHER)
        timeline = Timeline(engine.backend, OTHER)  # type: ignore[arg-type]
        timeline.measure(transfers=True, graph=False)
        check(timeline.results(), truth)
        timeline.close()
        together = Together([seg.backend, depth.backend], OTHER.shape, whole=True)  # type: ignore[list-item]
        check(together(OTHER), {name: truth[name] for name in ("seg", "depth")})
        together.close()


def test_an_engine_of_one_size_in_a_bundle_of_free_sizes(trt: Any, tmp_path: Path) -> None:
    """The engine's own sizes hold: images are brought to them."""
    bundle = bundle_with_engines(tmp_path / "free.mtl", multiple=4)
    fixed = bundle_with_engines(tmp_path / "fixed.mtl")
    manifest, plan = open_bundle(bundle).manifest, (fixed / "fp32.trt").read_bytes()
    graph = next(artifact for artifact in manifest.artifacts if artifact.path == "fp32.onnx")
    engine = engine_artifact(graph, plan, BATCH_MAX, record_of("fp32.onnx", (bundle / "fp32.onnx").read_bytes()))
    (bundle / engine.path).write_bytes(plan)
    others = tuple(artifact for artifact in manifest.artifacts if artifact.path != engine.path)
    write_manifest(bundle, replace(manifest, artifacts=(*others, engine)))
    photo = RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8)
    with load(bundle, backend="tensorrt") as model, load(fixed, backend="onnxruntime") as truth:
        assert model.predict(photo) == truth.predict(photo)
        check(model(photo), truth(photo))
