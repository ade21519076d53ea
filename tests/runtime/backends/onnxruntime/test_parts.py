"""A network in parts on ONNX Runtime: any heads on one pass of the backbone, in the memory that it left."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import BackendError, BundleError, IntegrityError, OptionError, RunError, TaskError, load
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.backends.onnxruntime.parts import OnnxRuntimeParts
from tests.networks.dense_bundle import SIZE as DENSE
from tests.networks.dense_bundle import write_dense_bundle
from tests.networks.split_bundle import SIZE, TASKS, cut_bundle, write_uneven_bundle

IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)
SUBSETS = [chosen for count in (1, 2, 3) for chosen in combinations(TASKS, count)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uneven_bundle(tmp_path_factory.mktemp("parts") / "a.mtl")


@pytest.fixture(scope="module")
def truth(bundle: Path) -> dict[str, np.ndarray]:
    with load(bundle) as whole:
        found: dict[str, np.ndarray] = whole(IMAGES)
    return found


class Passes:
    """Which parts ran, and which memory they read and wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.read: dict[str, int] = {}
        self.written: dict[str, int] = {}
        run = OnnxRuntimeBackend.run_bound

        def watched(backend: Any, inputs: Any, outputs: Any, into: Any, kept: Any) -> Any:
            self.ran.append(Path(backend._where).stem)
            self.read |= {name: value.data_ptr() for name, value in inputs.items() if not isinstance(value, np.ndarray)}
            found = run(backend, inputs, outputs, into, kept)
            self.written |= {name: value.data_ptr() for name, value in found.items()}
            return found

        monkeypatch.setattr(OnnxRuntimeBackend, "run_bound", watched)


def test_any_heads_run_on_one_backbone_pass(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, truth: dict[str, np.ndarray]
) -> None:
    passes = Passes(monkeypatch)
    needed = {"a": {"head-a"}, "b": {"neck-1", "head-b"}, "c": {"neck-1", "head-c"}}
    with load(bundle, split=True) as model:
        assert type(model.backend) is OnnxRuntimeParts
        assert model.backend.details.endswith("in 5 parts")
        for tasks in SUBSETS:
            passes.ran.clear()
            found = model(IMAGES, tasks=tasks)
            assert list(found) == list(tasks)
            for task in tasks:
                np.testing.assert_array_equal(found[task], truth[task])
            assert sorted(passes.ran) == sorted({"backbone"}.union(*(needed[task] for task in tasks)))
            assert passes.ran[0] == "backbone"


def test_nothing_is_copied_between_the_parts(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    passes = Passes(monkeypatch)
    with load(bundle, split=True) as model:
        model(IMAGES)
    assert set(passes.read) == {"stage1", "stage2", "neck"}
    assert passes.read == {name: passes.written[name] for name in passes.read}


def test_each_weight_is_loaded_once(bundle: Path) -> None:
    with load(bundle, split=True) as model:
        before = len(model.backend._loaded)  # type: ignore[attr-defined]
        for tasks in SUBSETS:
            model(IMAGES, tasks=tasks)
        assert all(len(backend._sessions) == 1 for _, backend in model.backend._loaded)  # type: ignore[attr-defined]
        assert len(model.backend._loaded) == before == 5  # type: ignore[attr-defined]


def test_buffers_of_the_caller_are_written(monkeypatch: pytest.MonkeyPatch, bundle: Path, truth: Any) -> None:
    passes = Passes(monkeypatch)
    with load(bundle, split=True) as model:
        out = {"c": np.zeros((5, 3), np.float32), "a": np.zeros((5, 1), np.float32)}
        found = model(IMAGES, out=out)
    for task in TASKS:
        np.testing.assert_array_equal(found[task], truth[task])
    assert all(found[name] is buffer for name, buffer in out.items())
    assert passes.written["c"] == out["c"].ctypes.data


def test_only_the_parts_of_the_chosen_tasks_are_loaded(bundle: Path, truth: dict[str, np.ndarray]) -> None:
    with load(bundle, split=True, tasks=("a",)) as model:
        np.testing.assert_array_equal(model(IMAGES)["a"], truth["a"])
        assert model.backend.details.endswith("in 2 parts")
        with pytest.raises(TaskError):
            model(IMAGES, tasks=("b",))


def test_graphs_stay_whole_unless_parts_are_asked_for(bundle: Path, truth: dict[str, np.ndarray]) -> None:
    for split in (None, False):
        with load(bundle, split=split) as model:
            assert type(model.backend) is OnnxRuntimeBackend
            np.testing.assert_array_equal(model(IMAGES, tasks=("c",))["c"], truth["c"])


@pytest.mark.parametrize("options", [{}, {"multiple": 4}, {"classes": 300}, {"image_input": "float"}], ids=str)
def test_dense_tasks(tmp_path: Path, options: dict[str, Any]) -> None:
    bundle = cut_bundle(write_dense_bundle(tmp_path / "a.mtl", separate=False, **options))
    images = np.random.default_rng(0).integers(0, 256, (2, *DENSE, 3), dtype=np.uint8)
    with load(bundle) as whole, load(bundle, split=True) as model:
        for batch in [images, *([np.ascontiguousarray(images[:1, :32, :16])] if "multiple" in options else [])]:
            expected = whole(batch)
            for tasks in (("depth",), ("seg", "normals"), ("seg", "depth", "normals")):
                for name, values in model(batch, tasks=tasks).items():
                    assert values.dtype == expected[name].dtype
                    np.testing.assert_array_equal(values, expected[name])
        assert str(model.predict(images[0])["seg"]) == str(whole.predict(images[0])["seg"])


def test_several_threads(bundle: Path, truth: dict[str, np.ndarray]) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(30):
                tasks, count = SUBSETS[rng.integers(len(SUBSETS))], int(rng.integers(1, 6))
                found = model(IMAGES[:count], tasks=tasks)
                wrong.extend(name for name in tasks if not np.array_equal(found[name], truth[name][:count]))
        except Exception as error:  # noqa: BLE001 - asserted below
            wrong.append(error)

    with load(bundle, split=True, threads=1) as model:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_streams_run_the_heads_that_are_due(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    passes = Passes(monkeypatch)
    with load(bundle, split=True) as model, model.stream(every={"c": 2}, drop="wait", results=9) as stream:
        for image in IMAGES[:4]:
            stream.submit(image)
        stream.finish()
        assert [len(result.fresh) for result in stream] == [3, 2, 3, 2]
    assert passes.ran.count("backbone") == 4
    assert passes.ran.count("head-c") == 2


def test_what_cannot_be_is_said(bundle: Path, tmp_path: Path) -> None:
    whole = write_dense_bundle(tmp_path / "a.mtl")
    for path in (whole, bundle / "fp32.onnx", whole / "separate/seg.onnx"):
        if path == bundle / "fp32.onnx":
            with load(path, split=True) as model:
                assert type(model.backend) is OnnxRuntimeParts
            continue
        with pytest.raises(OptionError, match=r"has no parts to run it in.*mtl-export --split"):
            load(path, split=True)
    lone = tmp_path / "lone.onnx"
    lone.write_bytes((whole / "fp32.onnx").read_bytes())
    with pytest.raises(OptionError, match="a lone graph has no parts"):
        load(lone, split=True)
    with pytest.raises(OptionError, match=r"head-a\.onnx is a part of a network; load the bundle .* with split=True"):
        load(bundle / "split/fp32/head-a.onnx")
    with load(bundle, split=True) as model, pytest.raises(BackendError, match="need an engine"):
        model(IMAGES, on_device=True)
    with pytest.raises(RunError, match="closed"):
        model(IMAGES)


def test_a_changed_part_is_refused(tmp_path: Path) -> None:
    folder = write_uneven_bundle(tmp_path / "a.mtl")
    head, other = folder / "split/fp32/head-a.onnx", folder / "split/fp32/head-b.onnx"
    content = head.read_bytes()
    head.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"head-a\.onnx: SHA-256 is"):
        load(folder, split=True)
    load(folder).close()  # the whole graph needs no part
    head.write_bytes(other.read_bytes())
    with pytest.raises(IntegrityError, match=r"head-a\.onnx"):
        load(folder, split=True)


Change = Callable[[list[dict[str, Any]]], Any]


def without(name: str) -> Change:
    return lambda parts: [part for part in parts if name not in part["path"]]


def neck_for_b_alone(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part | {"tasks": ["b"]} if "neck" in part["path"] else part for part in parts]


def head_twice(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*parts, parts[-1]]


def other_names(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = json.dumps(parts).replace('"stage1"', '"stage3"')
    return json.loads(text)  # type: ignore[no-any-return]


def no_shape(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    parts[0]["inputs"][0]["more"] = [1]
    return parts


REFUSED: dict[str, tuple[Change, str]] = {
    "no neck": (without("neck-1"), "reads 'neck', which no part before it gives"),
    "no head": (without("head-c"), "no part gives task 'c'"),
    "in reverse": (lambda parts: parts[::-1], "which no part before it gives"),
    "a neck that runs for one task only": (neck_for_b_alone, r"head-c\.onnx: it reads 'neck', which no part"),
    "a head twice": (head_twice, "is there already"),
    "other names than the files have": (other_names, r"backbone\.onnx: its inputs and outputs are not those"),
    "no shape": (no_shape, "'image' is of no shape"),
    "no outputs": (
        lambda parts: [part | {"outputs": []} for part in parts],
        r"malformed manifest: parts\[0\]\.outputs",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_parts_that_are_no_whole_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    folder = write_uneven_bundle(tmp_path / "a.mtl")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"parts": change(manifest["parts"])}))
    with pytest.raises(BundleError, match=message):
        load(folder, split=True)


def test_a_model_in_parts_can_be_pickled(bundle: Path, truth: dict[str, np.ndarray]) -> None:
    with load(bundle, split=True) as model:
        again = pickle.loads(pickle.dumps(model))
    with again:
        assert type(again.backend) is OnnxRuntimeParts
        np.testing.assert_array_equal(again(IMAGES)["b"], truth["b"])
