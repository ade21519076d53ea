"""OpenVINO with what else loading and serving offer: networks in parts, and servers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import OptionError, load
from mtl_deploy.runtime.serving.answers import answers
from mtl_deploy.runtime.serving.triton import BUNDLE, TritonPythonModel
from tests.networks.split_bundle import SIZE, TASKS, write_uneven_bundle

pytest.importorskip("openvino")

MakeBundle = Callable[..., Path]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uneven_bundle(tmp_path_factory.mktemp("parts") / "a.mtl")


def test_a_bundle_in_parts_runs_whole_on_it(parted: Path) -> None:
    with load(parted, providers=["CPU"]) as reference:
        truth = reference(IMAGES)
    for split in (None, False):
        with load(parted, backend="openvino", split=split) as model:
            assert model.backend.name == "openvino"
            for tasks in (TASKS, ("b",)):
                found = model(IMAGES, tasks=tasks)
                assert list(found) == list(tasks)
                for task in tasks:
                    np.testing.assert_allclose(found[task], truth[task], rtol=1e-4, atol=1e-4)


def test_parts_run_on_onnx_runtime_or_are_refused(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"split=True and backend='openvino': parts of .* run on ONNX Runtime"):
        load(parted, backend="openvino", split=True)
    monkeypatch.setattr("mtl_deploy.runtime.selection.graph_backend", lambda *_: ("openvino", "chosen"))
    with load(parted) as model:
        assert (model.backend.name, model.why) == ("openvino", "chosen")
    with load(parted, split=True) as model:
        assert model.backend.details.endswith("in 5 parts")
        assert model.why == "parts of graphs run on ONNX Runtime"


def test_parts_run_several_calls_at_once(parted: Path) -> None:
    with load(parted, providers=["CPU"], split=True, mode="throughput", threads=3) as model:
        assert "3 calls at once" in model.backend.details
        assert set(model(IMAGES)) == set(TASKS)
    with pytest.raises(OptionError, match="mode='fast'"):
        load(parted, providers=["CPU"], split=True, mode="fast")


def test_a_part_by_itself_is_no_graph_to_load(parted: Path) -> None:
    with pytest.raises(OptionError, match="is a part of a network"):
        load(next(parted.rglob("backbone.onnx")), backend="openvino")


@pytest.mark.parametrize("backend", [None, "onnxruntime"])
def test_a_device_by_name_is_its_own(make_bundle: MakeBundle, backend: str | None) -> None:
    with pytest.raises(OptionError, match=r"device='GPU': .* need backend='openvino'"):
        load(make_bundle(), backend=backend, device="GPU")


def test_a_server_answers_with_it(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """Servers load with ``spinning=False``; on a machine with a GPU, Triton names one that it does not take."""
    version = tmp_path / "1"
    shutil.copytree(make_bundle(), version / BUNDLE)
    settings = {"backend": {"string_value": "openvino"}, "threads": {"string_value": "1"}}
    served = TritonPythonModel()
    for kind in ("CPU", "GPU"):
        served.initialize(
            {
                "model_config": json.dumps({"parameters": settings}),
                "model_repository": str(tmp_path),
                "model_version": "1",
                "model_instance_kind": kind,
                "model_instance_device_id": "0",
            }
        )
        model: Any = served._model
        assert model.backend.name == "openvino"
        images = list(np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
        with load(version / BUNDLE, providers=["CPU"]) as reference:
            expected = answers(reference, images, ["age", "race"])
        for found, right in zip(answers(model, images, ["age", "race"]), expected, strict=True):
            assert found.error is None
            assert found.predictions["race"].label == right.predictions["race"].label
            for name, values in right.outputs.items():
                np.testing.assert_allclose(found.outputs[name], values, rtol=1e-4, atol=1e-4)
        model.close()
