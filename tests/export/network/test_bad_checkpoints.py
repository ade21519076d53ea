"""Files and weights that cannot be used, each refused in words that name the fault."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import small_networks
import torch
from checkpoints import State, prefixed, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError, OptionError

# Bad files


def write(folder: Path, content: bytes, name: str = "model.pt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def jpeg(folder: Path) -> Path:
    path = folder / "model.pt"
    Image.new("RGB", (8, 8)).save(path, format="JPEG")
    return path


def onnx_graph(folder: Path, name: str) -> Path:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    path = folder / name
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def torchscript(folder: Path) -> Path:
    path = folder / "model.pt"
    torch.jit.save(torch.jit.trace(small_networks.Shared().eval(), torch.zeros(1, 3, 8, 8)), path)
    return path


def zip_of_something(folder: Path) -> Path:
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/readme.txt", "hello")
    return path


FILES = [
    pytest.param(lambda folder: folder / "nowhere.pt", r"nowhere\.pt: No such file.*check the path", id="missing"),
    pytest.param(lambda folder: folder, "a folder; give the checkpoint file", id="folder"),
    pytest.param(lambda folder: write(folder, b""), "an empty file", id="empty"),
    pytest.param(
        lambda folder: write(folder, b"lr: 0.1\n"), "a text file, not a checkpoint; save the weights", id="text"
    ),
    pytest.param(lambda folder: write(folder, bytes(range(256))), "of an unknown format", id="binary"),
    pytest.param(jpeg, "a JPEG image, not a checkpoint", id="jpeg"),
    pytest.param(lambda folder: write(folder, b"ftrt" + bytes(64)), "a TensorRT engine", id="engine-by-content"),
    pytest.param(lambda folder: write(folder, bytes(64), "m.engine"), "a TensorRT engine", id="engine-by-name"),
    pytest.param(lambda folder: write(folder, b"<!DOCTYPE html><html>"), "the download went wrong", id="html"),
    pytest.param(
        lambda folder: write(folder, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull", id="lfs"
    ),
    pytest.param(zip_of_something, "a zip archive, but not one that torch.save wrote", id="zip"),
]


@pytest.mark.parametrize(("make", "message"), FILES)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_checkpoint_is_called_by_its_name(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(make(tmp_path), trust_pickle=trust)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt"])
def test_an_onnx_graph_without_images_says_what_it_takes(name: str, tmp_path: Path) -> None:
    path = onnx_graph(tmp_path, name)
    with pytest.raises(CheckpointError, match=r"no input of this graph is a batch of images .* 'x' \(1\) float"):
        load_checkpoint(path)
    with pytest.raises(OptionError, match="--trust-pickle does not apply"):
        load_checkpoint(path, trust_pickle=True)
    with pytest.raises(OptionError, match="--model does not apply"):
        load_checkpoint(path, model="small_networks:Shared")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_read_only_if_it_is_trusted(tmp_path: Path) -> None:
    path = torchscript(tmp_path)
    with pytest.raises(CheckpointError, match=r"runs code of its own .* nothing was run\. Pass --trust-pickle"):
        load_checkpoint(path)
    assert load_checkpoint(path, trust_pickle=True).kind == "script"
    with pytest.raises(OptionError, match="--model does not apply"):
        load_checkpoint(path, trust_pickle=True, model="small_networks:Shared")


def test_safetensors_without_the_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetensors", None)
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = write(tmp_path, len(header).to_bytes(8, "little") + header + bytes(4), "model.safetensors")
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        load_checkpoint(path)


def saved_bytes(modern: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(small_networks.Shared().state_dict(), buffer, _use_new_zipfile_serialization=modern)
    return buffer.getvalue()


CONTENTS = {"zip": saved_bytes(True), "legacy": saved_bytes(False)}


@pytest.mark.parametrize("form", CONTENTS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_truncated_anywhere_is_an_error_in_words(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = CONTENTS[form]
    length = data.draw(st.integers(1, len(content) - 1))
    path = write(tmp_path_factory.mktemp("cut"), content[:length])
    # A legacy file cut in the middle of an allowed name asks for its first half.
    words = r"truncated or damaged|or is damaged|not a checkpoint|did not write|asks for code, (torch|collections)\b"
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path, model="small_networks:Shared")


@pytest.mark.parametrize("form", CONTENTS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_in_words_or_harmless(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(CONTENTS[form])
    place = data.draw(st.integers(0, min(len(content), 2500) - 1))  # the pickle, not the weights' own bytes
    content[place] ^= data.draw(st.integers(1, 255))
    path = write(tmp_path_factory.mktemp("damaged"), bytes(content))
    with contextlib.suppress(CheckpointError):
        loaded = load_checkpoint(path, model="small_networks:Shared")
        assert set(loaded.network.state_dict()) == set(small_networks.Shared().state_dict())


# Bad weights


def change(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, name: value(state[name])}


def poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def poison(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[5] = value
        return changed

    return poison


def quantized(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def without(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


WEIGHT, VARIANCE = "net.layer1.0.conv1.weight", "net.layer1.0.bn1.running_var"
STATES = [
    pytest.param(change(WEIGHT, poisoned(float("nan"))), rf"'{WEIGHT}' has 1 of 36864 .*first is NaN", id="nan"),
    pytest.param(change(WEIGHT, poisoned(float("-inf"))), rf"'{WEIGHT}' has 1 .*infinite, at \[0, 0, 1, 2\]", id="inf"),
    pytest.param(change(VARIANCE, poisoned(float("nan"))), rf"'{VARIANCE}' has 1 of 64", id="nan-in-a-buffer"),
    pytest.param(without("net.layer2.0.conv1"), r"1 missing \(net.layer2.0.conv1.weight\)", id="missing"),
    pytest.param(without("net.conv1", "net.bn1"), r"5 missing \(net.conv1.weight, .*, and 1 more\)", id="missing-many"),
    pytest.param(
        lambda state: {**state, "net.conv1.bias": torch.zeros(64)},
        r"1 unexpected \(net.conv1.bias\)",
        id="unexpected",
    ),
    pytest.param(
        change("net.conv1.weight", lambda tensor: tensor[:, :1]),
        r"1 of another shape \(net.conv1.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)\)",
        id="one-channel",
    ),
    pytest.param(change(WEIGHT, lambda tensor: tensor.to("meta")), f"'{WEIGHT}' has no data", id="meta"),
    pytest.param(change(WEIGHT, lambda tensor: tensor.to(torch.int8)), f"'{WEIGHT}' is int8, not floating", id="int8"),
    pytest.param(change(WEIGHT, quantized), f"'{WEIGHT}' is qint8, not floating point", id="quantized"),
    pytest.param(
        change("net.fc1.final.weight", torch.Tensor.to_sparse), "'net.fc1.final.weight' is sparse", id="sparse"
    ),
    pytest.param(without("net.fc2", "net.fc3"), "has one head, 'net.fc1'", id="one-head"),
    pytest.param(without("net.fc"), "is not the article's network.*--model", id="no-heads"),
    pytest.param(
        lambda state: {name.removeprefix("net."): tensor for name, tensor in state.items()},
        r"tensors: conv1.weight, bn1.weight, bn1.bias, ...\) is not the article.s network",
        id="plain-resnet",
    ),
    pytest.param(lambda state: {**state, **prefixed("module.")(state)}, "two tensors are called", id="twice"),
]


@pytest.mark.parametrize(("make", "message"), STATES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_cannot_be_used_are_named(
    make: Callable[[State], object], message: str, state: State, tmp_path: Path
) -> None:
    path = save(tmp_path, make(state))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


def recursive() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor, not a state_dict"),
        ([torch.zeros(3)], "holds a list, not a state_dict"),
        ({}, "only an empty dict"),
        ({"epoch": 3, "optimizer": {"state": {0: {"a": torch.zeros(1)}}}}, "only 'epoch', 'optimizer'"),
        (
            {"backbone": {"w": torch.zeros(1)}, "heads": {"w": torch.zeros(1)}},
            r"several state_dicts \('backbone', 'heads'\)",
        ),
        (recursive(), "nested more than 4 deep"),
    ],
    ids=["tensor", "list", "empty", "optimizer-alone", "two-halves", "recursive"],
)
def test_checkpoints_without_a_state_dict(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save(tmp_path, content))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: small_networks.Shared().to("meta"), "has no data"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "has no shape yet"),
    ],
    ids=["meta", "lazy"],
)
def test_pickled_networks_without_values(network: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save(tmp_path, network()), trust_pickle=True)


def test_nan_in_a_pickled_network_is_named(tmp_path: Path) -> None:
    network = small_networks.Shared()
    network.race.bias.data[2] = float("nan")
    with pytest.raises(CheckpointError, match=r"'race\.bias' has 1 of 4 values"):
        load_checkpoint(save(tmp_path, network), trust_pickle=True)
