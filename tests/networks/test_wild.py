"""The rebuilt networks return what their docstrings say, and their files hold their weights."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wild
import wild_files
import wild_traps
from torch.nn import functional

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BATCH = 7  # a size that no network has


def described(value: Any) -> Any:
    """Return a nesting with a tensor's sizes, the batch as N, instead of each tensor."""
    if isinstance(value, torch.Tensor):
        sizes = ",".join("N" if size == BATCH else str(size) for size in value.shape)
        return sizes if value.dtype == torch.float32 else f"{sizes} {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "items"):
        return {name: described(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(map(described, value))
    if hasattr(value, "keys"):
        return {name: described(value[name]) for name in value.keys()}  # noqa: SIM118 - it is no mapping
    return {name: described(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value


FACES = ("N,1", "N,1", "N,4")
NAMED = {"age": "N,1", "gender": "N,1", "race": "N,4"}
MAPS = {"semseg": "N,5,{0},{0}", "depth": "N,1,{0},{0}", "normals": "N,3,{0},{0}", "edge": "N,1,{0},{0}"}
RETURNED: dict[str, Any] = {
    "fairface": "N,18",
    "hopenet": ("N,66", "N,66", "N,66"),
    "mivolo": "N,3",
    "sixdrepnet": "N,3,3",
    "pfld": ("N,8,14,14", "N,196"),
    "coral": ("N,10", "N,10"),
    "ssrnet": ("N", "N"),
    "utkface": {"age": "N", "gender": "N", "race": "N,5"},
    "celeba": {"attributes": ["N,1"] * 40, "landmarks": "N,5,2", "epoch": 7},
    "gaze": ("N,2", "N,2"),
    "twinlitenet": ("N,2,72,128", "N,2,72,128"),
    "refinenet": ("N,40,15,20", "N,1,15,20", "N,3,15,20"),
    "mtinet": {
        "deep_supervision": {
            f"scale_{place}": {
                **{f"features_{task}": f"N,8,{size},{size}" for task in MAPS},
                **{task: shape.format(size) for task, shape in MAPS.items()},
            }
            for place, size in enumerate((16, 8))
        },
        "initial_depth": "N,1,16,16",
        **{task: shape.format(64) for task, shape in MAPS.items()},
    },
    "mtan": (["N,13,64,64", "N,1,64,64", "N,3,64,64"], "3"),
    "segformer": {"logits": "N,5,16,16", "predicted_depth": "N,16,16", "hidden_states": ("N,8,16,16", "N,8,8,8")},
    "rgbd": ("N,6,48,64", "N,6,12,16", "N,6,6,8", "N,1"),
    "flow": {"flow_preds": ["N,2,64,64", "N,2,64,64"], "depth": "N,64,64"},
    "retinaface": ("N,168,4", "N,168,2", "N,168,10"),
    "yolop": [("N,378,6", ["N,3,8,12,6", "N,3,4,6,6", "N,3,2,3,6"]), "N,2,64,96", "N,2,64,96"],
    "yolopv2": ((["N,18,8,12", "N,18,4,6", "N,18,2,3"], ["1,3,1,1,2"] * 3), "N,2,64,96", "N,1,64,96"),
    "hybridnets": (
        ("N,8,16,32", "N,8,8,16", "N,8,4,8", "N,8,2,4", "N,8,1,2"),
        *("N,6138,4", "N,6138,1", "1,6138,4", "N,3,128,256"),
    ),
    "yolopose": (
        "N,56,84",
        {"boxes": "N,16,84", "scores": "N,1,84", "kpts": "N,51,84", "feats": ["N,8,8,8", "N,8,4,4", "N,8,2,2"]},
    ),
    "scrfd": tuple([f"N,{size},8,8", f"N,{size},4,4", f"N,{size},2,2"] for size in (2, 8, 20)),
    "fairmot": [{"hm": "N,1,16,16", "wh": "N,4,16,16", "id": "N,16,16,16", "reg": "N,2,16,16"}],
    "detr": {
        "pred_logits": "N,10,4",
        "pred_boxes": "N,10,4",
        "aux_outputs": [{"pred_logits": "N,10,4", "pred_boxes": "N,10,4"}],
    },
    "nested": {
        "faces": ({"age": "N,1"}, ["N,1", None]),
        "race": "N,4",
        "size": torch.Size([64, 64]),
        "anchors": "6,4 int64",
        "scale": 0.5,
    },
    "padded_pool": ("N,3,32,32", "N,3"),
    "tied": NAMED,
    "pair": {"same": "N,1", "ages": "N,2"},
    "sized": {"seg": "N,3,32,32", "place": "N,4"},
    "dataclass": {**NAMED, "loss": None},
    "namespace": NAMED,
    "fields": NAMED,
}
RETURNED |= {"rgb_and_depth": RETURNED["rgbd"], "flow_bare": RETURNED["flow"], "sized_partial": RETURNED["sized"]}
ALONE = {"maskrcnn", "baked_constant"}  # with tests of their own


@pytest.mark.parametrize("name", sorted(wild.TASKS.keys() - ALONE))
def test_a_network_returns_what_its_docstring_says(name: str) -> None:
    network = wild.trained(name)
    with torch.inference_mode():
        found = network(*wild.inputs(name, BATCH))
    assert described(found) == RETURNED.get(name, FACES)
    assert not network.training


def test_objects_are_as_many_as_there_are() -> None:
    with torch.inference_mode():
        found = wild.trained("maskrcnn")(*wild.inputs("maskrcnn", 3))
    counts = [len(image["boxes"]) for image in found]
    assert len(set(counts)) > 1
    for image, count in zip(found, counts, strict=True):
        assert {name: tuple(value.shape) for name, value in image.items()} == {
            "boxes": (count, 4),
            "labels": (count,),
            "scores": (count,),
            "masks": (count, 1, 28, 28),
        }
        assert image["labels"].dtype == torch.int64


def test_traps_are_traps() -> None:
    def answers(name: str, batch: int, seed: int = 3) -> list[torch.Tensor]:
        with torch.inference_mode():
            return list(wild.trained(name)(*wild.inputs(name, batch, seed=seed)))

    with pytest.raises(RuntimeError):
        answers("baked_constant", 3)
    for name in ("stateless", "mixing"):  # one image alone, and among others
        images = wild.inputs(name, 2)[0]
        with torch.inference_mode():
            pair, single = wild.trained(name)(images)[0][:1], wild.trained(name)(images[:1])[0]
        assert not torch.allclose(pair, single, atol=1e-3)
    for name in ("dropping", "noisy"):  # the same images twice
        network, images = wild.trained(name), wild.inputs(name)[0]
        with torch.inference_mode():
            assert not torch.allclose(network(images)[0], network(images)[0], atol=1e-3)
    assert [tuple(value.shape) for value in wild.trained("utkface")(*wild.inputs("utkface", 1)).values()] == [
        (),
        (),
        (5,),
    ]
    maps, _ = wild_traps.PaddedPool()(torch.full((1, 3, 4, 4), -1.0))
    assert maps[0].tolist() == [[[-1.0, 0.0], [0.0, 0.0]]] * 3
    assert wild.trained("silent").eval() is None


def test_rotations_are_rotations() -> None:
    with torch.inference_mode():
        matrices = wild.trained("sixdrepnet")(*wild.inputs("sixdrepnet"))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(2))


def test_outlook_attention_is_fold_and_unfold() -> None:
    values = torch.arange(36.0).reshape(1, 1, 6, 6)
    columns = functional.unfold(values, 3, padding=1, stride=2)
    counts = functional.fold(torch.ones_like(columns), (6, 6), 3, padding=1, stride=2)
    torch.testing.assert_close(functional.fold(columns, (6, 6), 3, padding=1, stride=2) / counts, values)


@pytest.mark.parametrize("name", sorted(wild.TASKS))
def test_a_task_file_names_each_task_once(name: str) -> None:
    tasks = tomllib.loads(wild.TASKS[name])["task"]
    names = [task["name"] for task in tasks]
    assert len(set(names)) == len(names)
    assert all(task["columns"][0] < task["columns"][1] for task in tasks if "columns" in task)


PLACES: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("celeba", "refinenet", "rgbd", "yolop", "scrfd", "fairmot"), (("state_dict",), "")),
    **dict.fromkeys(("gaze", "flow", "hybridnets", "detr", "maskrcnn"), (("model",), "")),
    "mivolo": (("state_dict",), ""),
    "sixdrepnet": (("model_state_dict",), ""),
    "pfld": (("pfld_backbone",), ""),
    "utkface": (("state_dict",), "model."),
    "twinlitenet": ((), "module."),
    "retinaface": ((), "module."),
    "mtinet": (("model",), "module."),
}
CODE = {"hybridnets", "yolopose", "detr", "maskrcnn"}  # their pickles want more than tensors
EXTRA = {"mivolo": {"fds.running_mean"}, "utkface": {"criterion.weight"}}


@pytest.mark.parametrize("name", sorted(wild.TASKS.keys() - {"yolopv2", "segformer", "yolopose"}))
def test_a_file_holds_the_weights(name: str, tmp_path: Path) -> None:
    path = wild.checkpoint(name, tmp_path)
    content = torch.load(path, weights_only=name not in CODE)
    path_in_file, prefix = PLACES.get(name, ((), ""))
    for key in path_in_file:
        content = content[key]
    state = {key.removeprefix(prefix): value for key, value in content.items()}
    expected = wild.trained(name).state_dict()
    assert state.keys() - expected.keys() == EXTRA.get(name, set())
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(state[key], value, rtol=0, atol=0)
        else:
            assert state[key] == value


@pytest.mark.parametrize("name", sorted(CODE))
def test_a_file_that_wants_code_is_no_plain_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError):
        torch.load(wild.checkpoint(name, tmp_path), weights_only=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_files_of_other_kinds(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole = torch.load(wild.checkpoint("yolopose", tmp_path), weights_only=False)
    assert whole["model"] is None
    assert {value.dtype for value in whole["ema"].parameters()} == {torch.float16}
    assert load_file(wild.checkpoint("segformer", tmp_path)).keys() == wild.trained("segformer").state_dict().keys()
    network, images = wild.trained("yolopv2"), wild.inputs("yolopv2", 1)
    script = torch.jit.load(wild.checkpoint("yolopv2", tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(script(*images)[1], network(*images)[1])


@pytest.mark.parametrize("name", sorted(wild_files.FILES.keys() - {"model.onnx", "traced.pt", "scripted.pt"}))
def test_a_variant_is_not_the_plain_state_dict(name: str, tmp_path: Path) -> None:
    path = wild_files.FILES[name](tmp_path / name)
    plain = wild_files.network().state_dict()
    if name == "tied.safetensors":
        from safetensors.torch import load_file

        assert len(load_file(path)) == len(plain) - 2
        return
    content = torch.load(path, weights_only=name != "whole.pt")
    assert content.keys() != plain.keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_scripts_and_graphs_answer_as_the_network(tmp_path: Path) -> None:
    import onnxruntime

    images = wild.inputs("baked")[0]
    with torch.inference_mode():
        expected: Any = wild_files.network()(images)
        traced = torch.jit.load(wild_files.traced(tmp_path / "traced.pt"))(images)
        scripted = torch.jit.load(wild_files.scripted(tmp_path / "scripted.pt"))(images)
    for found in (traced, scripted):
        torch.testing.assert_close(found[0], expected[0])
    for batch in (None, 1):
        path = wild_files.exported(tmp_path / f"model_{batch}.onnx", batch=batch)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        found = session.run(None, {name: images[:batch].numpy()})
        np.testing.assert_allclose(found[0], expected[0][:batch], atol=1e-5)
