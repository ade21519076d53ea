"""Public networks and traps, from the file that holds their weights to a bundle that runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wild

from mtl_deploy.export.cli import main
from mtl_deploy.export.forward.outputs import pick
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.loading import load

EXPORTED = (
    *(
        "fairface",
        "hopenet",
        "sixdrepnet",
        "pfld",
        "ssrnet",
        "utkface",
        "celeba",
        "twinlitenet",
        "refinenet",
        "mtinet",
        "mtan",
    ),
    *(
        "segformer",
        "retinaface",
        "yolop",
        "hybridnets",
        "yolopose",
        "scrfd",
        "fairmot",
        "detr",
        "nested",
        "padded_pool",
        "tied",
    ),
    *(
        "sized",
        "sized_partial",
        "dataclass",
        "namespace",
        "fields",
        "baked",
        "baked_constant",
        "extra_state",
        "deformable",
    ),
    *("odd_pool", "mivolo", "coral", "gray", "rgba", "rgbd", "six_channels", "extra_state", "silent", "yolopv2"),
)
AT_HOME = ("fairface", "hopenet", "twinlitenet", "dataclass")
FAST = ("--precision", "fp32")
CODE = {"yolopose", "yolopv2"}  # whose files run code when they are read


def export(name: str, folder: Path, *more: str) -> int:
    """Export a network from the file that its training script writes, as somebody would who has just found it."""
    checkpoint = wild.checkpoint(name, folder)
    (folder / "tasks.toml").write_text(wild.TASKS[name])
    height, width = wild.SIZES.get(name, (64, 64))
    model = [] if name == "yolopv2" else ["--model", f"wild:{name}"]
    given = [
        *model,
        "--tasks",
        str(folder / "tasks.toml"),
        "--image-size",
        f"{height}x{width}",
        *wild.OPTIONS.get(name, ()),
    ]
    common = ["-o", str(folder / "x.mtl"), "--engine", "none", "--no-separate", "--threads", "1", "-q"]
    trust = ["--trust-pickle"] if name in CODE else []
    return main([str(checkpoint), *given, *trust, *common, *more])


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "x.mtl" / "manifest.json").read_text())
    return found


def notes(folder: Path) -> str:
    return "\n".join(manifest(folder)["provenance"]["notes"])


@pytest.mark.parametrize("name", AT_HOME)
def test_a_few_export_in_every_default_precision(name: str, tmp_path: Path) -> None:
    assert export(name, tmp_path) == 0
    assert {artifact["path"] for artifact in manifest(tmp_path)["artifacts"]} == {"fp32.onnx", "fp16.onnx"}


@pytest.mark.extended
@pytest.mark.parametrize("name", EXPORTED)
def test_all_export_and_answer_as_their_network(name: str, tmp_path: Path) -> None:
    assert export(name, tmp_path, *FAST) == 0
    tasks = manifest(tmp_path)["signature"]["tasks"]
    height, width = wild.SIZES.get(name, (64, 64))
    count = 2 if name == "baked_constant" else 1
    preprocessing = open_bundle(tmp_path / "x.mtl").manifest.signature.preprocessing
    shape = (count, height, width, len(preprocessing.mean))
    pixels = np.random.default_rng(3).integers(0, 255, shape, np.uint8)
    with load(tmp_path / "x.mtl") as model:
        found = model(pixels)
    constants = {"out_size": (32, 32)} if name == "sized" else {}
    with torch.inference_mode():
        result = wild.trained(name)(network_input(pixels, preprocessing), **constants)
    for task in tasks:
        if task["kind"] != "raw":
            assert np.isfinite(found[task["name"]]).all()
            continue
        truth = pick(result, task["output"]).numpy()
        assert found[task["name"]].shape == (count, *task["shape"])
        np.testing.assert_allclose(found[task["name"]].ravel(), truth.ravel(), atol=2e-4 * (1 + np.abs(truth).max()))


def test_columns_and_raw_tensors_reach_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert export("fairface", tmp_path / "a", *FAST) == 0
    by_name = {task["name"]: task for task in manifest(tmp_path / "a")["signature"]["tasks"]}
    assert [by_name[name]["columns"] for name in ("race", "gender", "age")] == [[0, 7], [7, 9], [9, 18]]
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with load(tmp_path / "a" / "x.mtl") as model:
        answers = model.predict([image])[0]
    assert answers["gender"].label in ("male", "female")
    assert answers["race"].probabilities is not None
    assert answers["race"].probabilities.shape == (7,)

    (tmp_path / "b").mkdir()
    assert export("sixdrepnet", tmp_path / "b", *FAST) == 0
    assert "there is one task, so nothing is shared" in notes(tmp_path / "b")
    with load(tmp_path / "b" / "x.mtl") as model:
        rotation = model.predict([image])[0]["rotation"]
    assert np.asarray(rotation.value).shape == (3, 3)
    np.testing.assert_allclose(np.asarray(rotation.value) @ np.asarray(rotation.value).T, np.eye(3), atol=1e-4)
    assert len(str(rotation)) < 80
    assert np.shape(rotation.to_dict()["matrix"]) == (3, 3)


def test_several_tasks_read_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = '[[task]]\nname = "packed"\nkind = "raw"\noutput = 0\n[[task]]\nname = "again"\nkind = "regression"\noutput = 0\n'
    monkeypatch.setitem(wild.TASKS, "fairface", wild.TASKS["fairface"] + more)
    assert export("fairface", tmp_path, *FAST, "--outputs", "logits") == 0
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    with load(tmp_path / "x.mtl") as model:
        found = model(image)
    np.testing.assert_array_equal(found["packed"], found["again"])
    parts = np.concatenate([found[name] for name in ("race", "gender", "age")], axis=1)
    np.testing.assert_array_equal(found["packed"], parts)


def test_what_is_left_out_and_where_a_batch_is_fixed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert export("nested", tmp_path / "a", *FAST) == 0
    assert "outputs that no task reads left out" in notes(tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert export("baked", tmp_path / "b", *FAST) == 0
    artifact = manifest(tmp_path / "b")["artifacts"][0]
    assert (artifact["batch_min"], artifact["batch_max"]) == (1, 1)
    assert "the network fixes its batch size, so the graph takes one image at a time" in notes(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("dropping", 1, r"another answer to the same images at each call: dropout in .*wild_traps\.py, line \d+"),
        ("noisy", 1, r"at each call: randn_like in .*wild_traps\.py"),
        ("mixing", 1, "depends on the other images of its batch: an operator over the batch"),
        ("stateless", 1, r"depends on the other images of its batch: BatchNorm without running statistics \("),
        ("maskrcnn", 2, "one entry per image"),
        ("flow_bare", 2, r"takes more than images \('img1'.*--constant NAME=VALUE"),
    ],
)
def test_what_cannot_be_deployed_is_said_before_any_work(
    name: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(name, tmp_path, *FAST) == code
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "x.mtl").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("branching", r"in forward at .*wild_traps\.py, line \d+: if features.mean\(\) > 0"),
        ("spectral", r"linalg_svd .*has no form in ONNX; replace it with a projection such as Gram-Schmidt"),
    ],
)
def test_what_has_no_graph_names_the_line_and_the_way_on(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(name, tmp_path, *FAST) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
