"""A network in parts on the simulated TensorRT: the backbone once, then the heads that a call asks for, without copies between."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import BackendError, DeviceMemoryError, Model, OptionError, RunError, load
from mtl_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from mtl_deploy.runtime.backends.tensorrt.split.backend import TensorRTParts, TensorRTWithParts
from tests.fakes.gpu import BATCH_MAX, GpuArray, Simulation
from tests.networks.dense_bundle import SIZE as DENSE
from tests.networks.dense_bundle import write_dense_bundle
from tests.networks.split_bundle import PARTS, SIZE, TASKS, add_engines, write_uneven_bundle

IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH_MAX, *SIZE, 3), dtype=np.uint8)
SUBSETS = (("a",), ("b",), ("c",), ("a", "b"), ("c", "a"), ("b", "c"), TASKS)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return add_engines(write_uneven_bundle(tmp_path / "a.mtl"))


@pytest.fixture
def truth(bundle: Path) -> dict[str, np.ndarray]:
    with load(bundle, backend="onnxruntime") as graph:
        return graph(IMAGES)


def check(found: dict[str, Any], truth: dict[str, np.ndarray], tasks: tuple[str, ...], batch: int = BATCH_MAX) -> None:
    assert list(found) == list(tasks)
    for name, values in found.items():
        np.testing.assert_allclose(values, truth[name][:batch], rtol=1e-5, atol=1e-5)


def names(trt: Any) -> list[str]:
    """Return the outputs of each plan that was deserialized, as one text."""
    from tests.fakes.tensorrt import HEADER, session_of

    return [" ".join(one.name for one in session_of(plan[HEADER.size :]).get_outputs()) for plan in trt.deserialized]


def test_any_heads_run_on_one_backbone_pass(trt: Any, bundle: Path, truth: dict[str, np.ndarray]) -> None:
    with load(bundle, backend="tensorrt", split=True, contexts=1) as model:
        assert type(model.backend) is TensorRTParts
        assert model.backend.details.endswith("in 5 parts")
        for _ in range(3):  # plain, recorded, replayed
            for tasks in SUBSETS:
                check(model(IMAGES, tasks=tasks), truth, tasks)
        for batch in (3, 1, 8, 3):
            check(model(IMAGES[:batch]), truth, TASKS, batch)
        assert model.backend.graphs_off is None
    assert sorted(names(trt)) == ["a", "b", "c", "neck", "stage2 stage1"]


@pytest.mark.parametrize(("version", "rtx"), [("8.6.1", False), ("11.0.0", False), ("1.7.1.116", True)])
def test_every_library(machine: Simulation, tmp_path: Path, version: str, rtx: bool) -> None:
    trt = machine.install(version, rtx=rtx)
    library = "tensorrt-rtx" if rtx else "tensorrt"
    bundle = add_engines(write_uneven_bundle(tmp_path / "a.mtl"), library=library, version=version)
    with load(bundle, backend="onnxruntime") as graph, load(bundle, backend="tensorrt", split=True) as model:
        expected = graph(IMAGES)
        for _ in range(3):
            for tasks in (("a",), ("c", "b")):
                check(model(IMAGES, tasks=tasks), expected, tasks)
        assert model.backend.graphs_off is None
    caches = sorted(file.name for file in (bundle / "split/fp32").glob("*.cache"))
    assert caches == (sorted(f"{name}.trt.cache" for name in PARTS) if rtx else [])  # one for each part
    if rtx:
        trt.capturable = False
        with load(bundle, backend="tensorrt", split=True) as model:
            for _ in range(3):
                check(model(IMAGES, tasks=("b",)), expected, ("b",))
            assert "cannot be captured" in str(model.backend.graphs_off)


def test_nothing_is_copied_between_the_parts_and_only_what_was_asked_for_comes_back(
    machine: Simulation, trt: Any, bundle: Path
) -> None:
    copied: list[int] = []
    copy = machine.cuda.cuMemcpyDtoHAsync

    def counted(target: Any, source: Any, size: int, stream: Any) -> Any:
        copied.append(size)
        return copy(target, source, size, stream)

    machine.replace("cuMemcpyDtoHAsync", counted)
    with load(bundle, backend="tensorrt", split=True, contexts=1, cuda_graphs=0) as model:
        for tasks in (("c",), ("a", "b"), ("c", "a"), TASKS):
            model(IMAGES[:1], tasks=tasks)
    assert copied == [
        256,
        2 * 256,
        256,
        256,
        3 * 256,
    ]  # one aligned row per task; rows that lie side by side in one copy
    assert machine.cuda.calls["cuMemcpyDtoDAsync"] == 0


def test_a_graph_is_recorded_for_each_set_of_tasks(
    machine: Simulation, trt: Any, bundle: Path, truth: dict[str, np.ndarray]
) -> None:
    with load(bundle, backend="tensorrt", split=True, contexts=1) as model:
        for tasks in (("a",), ("b", "c")) * 4:
            check(model(IMAGES, tasks=tasks), truth, tasks)
        assert machine.cuda.calls["cuGraphLaunch"] == 4  # the third and fourth call of each: all parts in one launch


def test_calls_for_all_tasks_run_the_engine_and_others_the_parts(
    trt: Any, bundle: Path, truth: dict[str, np.ndarray]
) -> None:
    with load(bundle, backend="tensorrt") as model:
        assert type(model.backend) is TensorRTWithParts
        check(model(IMAGES), truth, TASKS)
        assert len(trt.deserialized) == 1
        check(model(IMAGES, tasks=("a",)), truth, ("a",))
        assert len(trt.deserialized) == 6
        check(model(IMAGES, tasks=("c", "b")), truth, ("c", "b"))
        pinned = model.pinned(2)
        pinned[...] = IMAGES[:2]
        check(model(pinned, tasks=("b",)), truth, ("b",), 2)
        assert len(trt.deserialized) == 6
    with load(bundle, backend="tensorrt", split=False) as model:
        assert type(model.backend) is TensorRTBackend
        check(model(IMAGES, tasks=("a",)), truth, ("a",))


def test_tasks_chosen_at_loading_load_only_their_parts(trt: Any, bundle: Path, truth: dict[str, np.ndarray]) -> None:
    with load(bundle, backend="tensorrt", tasks=("a",)) as model:
        check(model(IMAGES), truth, ("a",))
    assert len(trt.deserialized) == 2  # backbone and head, no engine of the whole
    trt.deserialized.clear()
    with load(bundle, backend="tensorrt", tasks=("c", "a"), split=True) as model:
        check(model(IMAGES), truth, ("a", "c"))
    assert len(trt.deserialized) == 4


def test_streams_use_the_parts(trt: Any, bundle: Path, truth: dict[str, np.ndarray]) -> None:
    with load(bundle, backend="tensorrt") as model:
        frames = [IMAGES[number % BATCH_MAX] for number in range(6)]
        with model.stream(every={"c": 3}, drop="wait", results=9) as stream:
            assert len(trt.deserialized) == 6  # before the first frame
            for frame in frames:
                stream.submit(frame)
            stream.finish()
            results = list(stream)
    assert [sorted(result.fresh) for result in results] == [["a", "b", "c"], ["a", "b"], ["a", "b"]] * 2
    for number, result in enumerate(results):
        np.testing.assert_allclose(result["a"].value, truth["a"][number, 0], rtol=1e-5)


def test_arrays_on_the_gpu_go_in_and_come_out(
    machine: Simulation, trt: Any, bundle: Path, truth: dict[str, np.ndarray]
) -> None:
    with machine.as_torch(), load(bundle, backend="tensorrt", split=True) as model:
        image, target = GpuArray(machine.cuda, IMAGES[:2]), GpuArray(machine.cuda, np.zeros((2, 3), np.float32))
        out = np.zeros((2, 1), np.float32)
        found = model(image.interface(), tasks=("a", "c"), out={"c": target.interface(), "a": out})
        np.testing.assert_allclose(target.read(), truth["c"][:2], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(out, truth["a"][:2], rtol=1e-5, atol=1e-5)
        assert found["a"] is out
        left = model(image.interface(), tasks=("b",), on_device=True)
        assert left["b"].shape == (2, 2)
        del left
        image.free()
        target.free()


OPTIONS: dict[str, dict[str, Any]] = {
    "decoded": {},
    "wide classes": {"classes": 300},
    "maps": {"outputs": "logits"},
    "free sizes": {"multiple": 4},
    "floats in": {"image_input": "float"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dense_tasks(trt: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    from tests.networks.split_bundle import cut_bundle

    bundle = add_engines(cut_bundle(write_dense_bundle(tmp_path / "a.mtl", separate=False, **options)))
    images = np.random.default_rng(0).integers(0, 256, (2, *DENSE, 3), dtype=np.uint8)
    other = np.random.default_rng(1).integers(0, 256, (1, 64, 32, 3), dtype=np.uint8)
    with load(bundle, backend="onnxruntime") as graph, load(bundle, backend="tensorrt", split=True) as model:
        for batch in [images, *([other] if "multiple" in options else []), images, images]:
            expected = graph(batch)
            for tasks in (("seg",), ("depth", "normals"), ("seg", "depth", "normals")):
                for name, values in model(batch, tasks=tasks).items():
                    assert values.dtype == expected[name].dtype
                    np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_several_threads(trt: Any, bundle: Path, truth: dict[str, np.ndarray]) -> None:
    failed: list[BaseException] = []

    def work(model: Model, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(12):
                tasks = SUBSETS[rng.integers(len(SUBSETS))]
                check(model(IMAGES[: (batch := int(rng.integers(1, 9)))], tasks=tasks), truth, tasks, batch)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    with load(bundle, backend="tensorrt", contexts=2) as model:
        threads = [threading.Thread(target=work, args=(model, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


def test_the_engine_goes_on_alone_where_the_parts_do_not_load(
    trt: Any, bundle: Path, truth: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    head = bundle / "split/fp32/head-b.trt"
    head.write_bytes(b"x" + head.read_bytes()[1:])
    manifest = json.loads((bundle / "manifest.json").read_text())
    for part in manifest["parts"]:
        if part["path"] == "split/fp32/head-b.trt":
            part["sha256"] = hashlib.sha256(head.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.WARNING, "mtl_deploy.loading"), load(bundle, backend="tensorrt") as model:
        for _ in range(2):
            check(model(IMAGES, tasks=("a",)), truth, ("a",))
    assert [record.getMessage().endswith("computes all tasks of every call") for record in caplog.records] == [True]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mtl_deploy.loading"), load(bundle, tasks=("b",)) as model:
        assert type(model.backend) is TensorRTBackend
        check(model(IMAGES), truth, ("b",))
    assert [record.getMessage().endswith("computes all tasks of every call") for record in caplog.records] == [True]
    with load(bundle, tasks=("a",)) as model:  # whose parts are whole
        assert type(model.backend) is TensorRTParts
    with pytest.raises(BackendError, match=r"head-b\.trt.*refuses it"):
        load(bundle, backend="tensorrt", split=True)


def test_no_parts_to_run_is_an_error(trt: Any, tmp_path: Path) -> None:
    whole = add_engines(write_dense_bundle(tmp_path / "a.mtl"))
    with pytest.raises(OptionError, match=r"fp32\.trt has no parts.*mtl-export --split"):
        load(whole, backend="tensorrt", split=True)
    with load(whole, backend="tensorrt") as model:
        assert type(model.backend) is TensorRTBackend


def test_a_closed_model_says_so(trt: Any, bundle: Path) -> None:
    model = load(bundle, backend="tensorrt")
    model(IMAGES, tasks=("a",))
    model.close()
    model.close()
    for tasks in (("a",), TASKS):
        with pytest.raises(RunError, match="closed"):
            model(IMAGES, tasks=tasks)


def test_memory_that_runs_out_is_an_error_of_the_call(
    machine: Simulation, trt: Any, bundle: Path, truth: dict[str, np.ndarray]
) -> None:
    with load(bundle, backend="tensorrt", split=True, contexts=1) as model:
        check(model(IMAGES[:1], tasks=("a",)), truth, ("a",), 1)
        machine.cuda.fail("cuMemAlloc", "OUT_OF_MEMORY")
        with pytest.raises(DeviceMemoryError):
            model(IMAGES, tasks=("a",))  # needs larger buffers
        check(model(IMAGES, tasks=("a",)), truth, ("a",))


def test_the_engine_goes_on_alone_where_there_is_no_memory_for_the_parts(
    machine: Simulation, trt: Any, bundle: Path, truth: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mtl_deploy.loading"), load(bundle, backend="tensorrt") as model:
        check(model(IMAGES), truth, TASKS)
        machine.cuda.fail("cuMemAlloc", "OUT_OF_MEMORY")
        check(model(IMAGES, tasks=("a",)), truth, ("a",))
    assert len(caplog.records) == 1
