"""Outputs that are NaN or infinite are marked, and JSON stays JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.cli import main
from mtl_deploy.runtime.predictions.decoding import decode
from mtl_deploy.runtime.show.colours import value_range
from mtl_deploy.runtime.show.picture import show

MakeBundle = Callable[..., Path]
AGE = Task("age", "regression", unit="years", size=1)
BOX = Task("box", "regression", size=2)
SEX = Task("sex", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", size=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("task", "width"), [(AGE, 1), (BOX, 2), (SEX, 1), (RACE, 3)], ids=lambda value: getattr(value, "name", "")
)
def test_vectors_are_marked(task: Task, width: int, bad: float) -> None:
    output = np.full((2, width), 0.25, np.float32)
    output[1, -1] = bad
    fine, marked = decode(task, output, "decoded")
    assert fine.finite
    assert "finite" not in fine.to_dict()
    assert not marked.finite
    assert str(marked).endswith("(NaN or infinite numbers)")
    data = json.loads(json.dumps(marked.to_dict(), allow_nan=False))
    assert data["finite"] is False
    if task.kind == "regression":
        assert data["value"] == ([0.25, None] if width == 2 else None)
    else:
        assert (marked.value, marked.label, marked.probability) == (-1, None, None)
        assert data["value"] is None
        assert data["label"] is None
        assert None in data["probabilities"]


def test_infinite_logits_are_marked_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    logits = np.array([[np.inf, 0, 0], [np.nan, 0, 0], [1, 2, 3]], np.float32)
    assert [one.finite for one in decode(RACE, logits, "logits")] == [False, False, True]
    assert [one.finite for one in decode(SEX, logits[:, :1], "logits")] == [
        True,
        False,
        True,
    ]  # 1 and 0 are probabilities
    assert not recwarn.list


def test_maps_are_marked_and_drawn() -> None:
    depth = np.linspace(1, 3, 8, dtype=np.float32).reshape(1, 2, 4)
    depth[0, 0, 0] = np.inf
    task = Task("depth", "depth", unit="metres", size=1)
    (found,) = decode(task, depth, "decoded")
    assert not found.finite
    assert found.to_dict()["max"] == 3.0
    normals = np.zeros((1, 3, 2, 4), np.float32)
    normals[:, 2] = 1
    normals[0, 0, 0, 0] = np.nan
    (turned,) = decode(Task("n", "normals", size=3), normals, "decoded")
    assert turned.to_dict() == {"shape": [2, 4, 3], "mean_direction": [0.0, 0.0, 1.0], "finite": False}
    tasks = (task, Task("n", "normals", size=3))
    assert show(np.zeros((2, 4, 3), np.uint8), {"depth": found, "n": turned}, tasks).width > 600
    logits = np.zeros((1, 2, 2, 4), np.float32)
    logits[0, 1, 0, 0] = np.nan
    assert not decode(Task("seg", "segmentation", size=2, stride=1), logits, "logits")[0].finite


@pytest.mark.parametrize("level", [0.0, 3e38, -3e38, 1e-40])
def test_a_scale_has_a_length_whatever_the_values(level: float) -> None:
    values = np.array([level, level, np.nan, np.inf], np.float32)
    low, high = value_range(values)
    assert low < high
    wide = np.array([-3e38, 3e38], np.float32)
    task = Task("depth", "depth", size=1)
    for one in (values, wide):
        (found,) = decode(task, np.broadcast_to(one, (1, 2, len(one))), "decoded")
        assert show(np.zeros((2, len(one), 3), np.uint8), {"depth": found}, (task,)).width > 300


def broken(bundle: Path, **changes: float) -> Path:
    """Let a graph's offset be another number, and the manifest know of it."""
    import hashlib

    import onnx
    from onnx import numpy_helper

    file = bundle / "fp32.onnx"
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            value = np.full_like(numpy_helper.to_array(tensor), changes[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    former = hashlib.sha256(file.read_bytes()).hexdigest()
    onnx.save(model, file)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace(former, hashlib.sha256(file.read_bytes()).hexdigest()))
    return bundle


def test_the_command_prints_json_and_a_table(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = broken(make_bundle(), **{"age.offset": float("nan")})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert load(bundle).predict(tmp_path / "a.png")["age"].finite is False
    assert main([str(bundle), str(tmp_path / "a.png"), "--json"]) == 0
    text = capsys.readouterr().out
    found: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in {text}"))
    assert found["predictions"][0]["tasks"]["age"] == {"value": None, "unit": "years", "finite": False}
    assert main([str(bundle), str(tmp_path / "a.png")]) == 0
    assert "nan years (NaN or infinite numbers)" in capsys.readouterr().out
