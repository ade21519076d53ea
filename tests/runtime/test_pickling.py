from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.runtime import Model, OptionError
from mtl_deploy.runtime import load as load_model

MakeBundle = Callable[..., Path]
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_pickled_model_is_loaded_again_with_its_options(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    pytest.importorskip(backend)
    bundle = make_bundle()
    monkeypatch.chdir(bundle.parent)
    with load_model(bundle.name, backend=backend, precision="fp16", tasks=("race", "age"), threads=1) as model:
        content = pickle.dumps(model)
        expected = model.predict(IMAGE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # a relative path is another one here
    with pickle.loads(content) as again:
        assert isinstance(again, Model)
        assert (again.artifact, again.backend.name) == (model.artifact, backend)
        assert [task.name for task in again.tasks] == ["age", "race"]
        assert again.predict(IMAGE) == expected
        assert pickle.loads(pickle.dumps(again)).predict(IMAGE) == expected


def test_a_bundle_that_changed_meanwhile_is_checked_like_any_other(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    with load_model(bundle) as model:
        content = pickle.dumps(model)
    (bundle / "fp32.onnx").write_bytes(b"something else")
    with pytest.raises(Exception, match="SHA-256"):
        pickle.loads(content)


def predict_there(model: Model, image: np.ndarray) -> tuple[int, float]:
    with model:
        return os.getpid(), model.predict(image)["age"].value


def test_a_model_can_be_passed_to_a_spawned_process(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        with pool:
            process, age = pool.submit(predict_there, model, IMAGE).result(timeout=120)
        assert process != os.getpid()
        assert age == model.predict(IMAGE)["age"].value


def test_a_model_that_was_put_together_by_hand_says_that_it_has_no_path(make_bundle: MakeBundle) -> None:
    with load_model(make_bundle()) as model:
        own = Model(model.backend, model.signature, model.artifact)
        with pytest.raises(OptionError, match="not made by load"):
            pickle.dumps(own)
