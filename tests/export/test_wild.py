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
    "odd_pool",
)
AT_HOME = ("fairface", "hopenet", "twinlitenet", "dataclass")
FAST = ("--precision", "fp32")
OF_CHANNELS = ("--channels", "--pixel-range", "--mean", "--std")


def options(name: str) -> list[str]:
    """Return the options of a network, without those of its channels, which change no output's form."""
    given = list(wild.OPTIONS.get(name, ()))
    pairs = [given[place : place + 2] for place in range(0, len(given), 2)]
    return [part for pair in pairs if pair[0] not in OF_CHANNELS for part in pair]


def export(name: str, folder: Path, *more: str) -> int:
    checkpoint = folder / "model.pt"
    torch.save(wild.trained(name).state_dict(), checkpoint)
    (folder / "tasks.toml").write_text(wild.TASKS[name])
    height, width = wild.SIZES.get(name, (64, 64))
    given = ["--model", f"wild:{name}", "--tasks", str(folder / "tasks.toml"), "--image-size", f"{height}x{width}"]
    common = ["-o", str(folder / "x.mtl"), "--engine", "none", "--no-separate", "--threads", "1", "-q"]
    return main([str(checkpoint), *given, *options(name), *common, *more])


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
    pixels = np.random.default_rng(3).integers(0, 255, (count, height, width, 3), np.uint8)
    with load(tmp_path / "x.mtl") as model:
        found = model(pixels)
    mean, std = (
        np.array(manifest(tmp_path)["signature"]["preprocessing"][word], np.float32) for word in ("mean", "std")
    )
    tensor = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
    constants = {"out_size": (32, 32)} if name == "sized" else {}
    with torch.inference_mode():
        result = wild.trained(name)(tensor, **constants)
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
    assert rotation.to_dict()["shape"] == [3, 3]


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
