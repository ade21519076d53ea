"""Checkpoints as training scripts leave them: what is accepted, and what is made of it."""

from __future__ import annotations

import hashlib
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import small_networks
import torch
from checkpoints import IMAGE, LAYOUT, State, assert_same, prefixed, save
from torch import nn

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.export.networks import article
from mtl_deploy.runtime.errors import CheckpointError, OptionError


def mixed(state: State) -> object:
    """As distributed training of a network whose ResNet alone was compiled leaves it."""
    return {"module." + name.replace("net.", "net._orig_mod.", 1): tensor for name, tensor in state.items()}


def averaged(state: State) -> object:
    network = article.build(LAYOUT)
    network.load_state_dict(state)
    return torch.optim.swa_utils.AveragedModel(network).state_dict()


def training_state(state: State) -> object:
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
    return {
        "epoch": 12,
        "best_loss": torch.tensor(0.25),
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]},
        "model_state_dict": state,
    }


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        pytest.param(OrderedDict, "a state_dict of the article's network", id="plain"),
        pytest.param(prefixed("module."), "prefix module. removed", id="data-parallel"),
        pytest.param(prefixed("_orig_mod.module._orig_mod."), "prefix _orig_mod., module. removed", id="repeated"),
        pytest.param(mixed, "prefix _orig_mod., module. removed", id="mixed"),
        pytest.param(prefixed("model."), "prefix model. removed", id="lightning"),
        pytest.param(averaged, "prefix module. removed", id="averaged-model"),
        pytest.param(training_state, "under 'model_state_dict'", id="training-state"),
        pytest.param(lambda state: {"state_dict": state}, "under 'state_dict'", id="state_dict"),
        pytest.param(lambda state: {"model": state, "args": {"lr": 0.1}}, "under 'model'", id="model"),
        pytest.param(lambda state: {"net": state}, "under 'net'", id="net"),
        pytest.param(lambda state: {"ema": {"state_dict": state}}, "under 'state_dict' in 'ema'", id="nested"),
        pytest.param(lambda state: {"resnet": state, "epoch": 1}, "under 'resnet'", id="own-name"),
        pytest.param(
            lambda state: {"ema": {name: torch.zeros_like(tensor) for name, tensor in state.items()}, "model": state},
            "under 'model' (not used: 'ema')",
            id="weights-and-their-average",
        ),
        pytest.param(lambda state: {**state, "epoch": 3}, "a state_dict of", id="epoch-among-the-tensors"),
        pytest.param(
            lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
            "a state_dict of",
            id="before-num_batches_tracked",
        ),
    ],
)
def test_finds_the_articles_network_in(
    wrap: Callable[[State], object], said: str, network: nn.Module, state: State, tmp_path: Path
) -> None:
    loaded = load_checkpoint(save(tmp_path, wrap(state)))
    assert loaded.kind == "article"
    assert said in loaded.description
    assert "ResNet-10 with 3 heads of sizes 1, 1, 5" in loaded.description
    assert loaded.default_tasks == article.TASKS
    assert (loaded.program, loaded.input_shape, loaded.image_size) == (None, None, None)
    assert_same(loaded.network, network)


def test_legacy_files_are_read(network: nn.Module, state: State, tmp_path: Path) -> None:
    path = save(tmp_path, state, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert_same(load_checkpoint(path).network, network)


def test_safetensors_are_read(network: nn.Module, state: State, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    safetensors.save_file(state, path)
    assert_same(load_checkpoint(path).network, network)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_checkpoint(path)


def test_a_bottleneck_network_is_read(tmp_path: Path) -> None:
    torch.manual_seed(2)
    layout = article.Layout(True, (1, 1, 1, 1), 32, 4, (article.Head(8, 2), article.Head(8, 3)))
    network = article.build(layout).eval()
    loaded = load_checkpoint(save(tmp_path, network.state_dict()))
    assert "ResNeXt-14 32x4d with 2 heads of sizes 2, 3" in loaded.description
    assert loaded.default_tasks is None
    assert_same(loaded.network, network)


def test_the_network_is_ready_to_run_and_the_file_is_free(state: State, tmp_path: Path) -> None:
    path = save(tmp_path, state)
    loaded = load_checkpoint(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    before = loaded.network.state_dict()["net.conv1.weight"].clone()
    path.write_bytes(bytes(path.stat().st_size))  # a new checkpoint written over the old one must not reach the network
    assert torch.equal(loaded.network.state_dict()["net.conv1.weight"], before)
    assert not loaded.network.training
    assert {(p.dtype, p.device.type, p.requires_grad) for p in loaded.network.parameters()} == {
        (torch.float32, "cpu", False)
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_become_float32_and_it_is_said(
    dtype: torch.dtype, network: nn.Module, state: State, tmp_path: Path
) -> None:
    other = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    loaded = load_checkpoint(save(tmp_path, other))
    assert f"converted from {str(dtype).removeprefix('torch.')} to float32" in loaded.description
    for name, tensor in loaded.network.state_dict().items():
        assert tensor.dtype == (torch.float32 if state[name].is_floating_point() else torch.int64)
        torch.testing.assert_close(tensor, other[name].to(tensor.dtype), rtol=0, atol=0)


def test_weights_for_the_users_own_network(tmp_path: Path) -> None:
    network = small_networks.ReversedDict().eval()
    state = {"module." + name: tensor for name, tensor in network.state_dict().items()}
    loaded = load_checkpoint(save(tmp_path, {"state_dict": state}), model="small_networks:make")
    assert loaded.kind == "model"
    assert loaded.description == "a state_dict under 'state_dict' for small_networks:make; prefix module. removed"
    with torch.inference_mode():
        found, expected = loaded.network(IMAGE), network(IMAGE)
    assert list(found) == ["race", "age", "gender"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_prefixes_that_are_the_networks_own_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import small_networks, torch\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.module = small_networks.Shared()\n"
        "    def forward(self, x):\n"
        "        return self.module(x)\n"
    )
    (tmp_path / "own_prefix.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    state = {f"module.{name}": tensor for name, tensor in small_networks.Shared().state_dict().items()}
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    for content in (state, wrapped):
        loaded = load_checkpoint(save(tmp_path, content), model="own_prefix:Own")
        assert_same(loaded.network, small_networks.Shared().eval())


FACTORIES = [
    ("small_networks", "write package.module:factory"),
    (":make", "write package.module:factory"),
    ("nowhere:make", "there is no module 'nowhere'; run from the folder"),
    ("small_networks.deeper:make", "there is no module 'small_networks.deeper'"),
    ("small_networks:nothing", "networks has no 'nothing'"),
    ("small_networks:Shared.nothing", "Shared has no 'nothing'"),
    ("small_networks:__doc__", "is a str, not a function or class"),
    ("small_networks:backbone.__name__.upper", r"returned a str, not a torch\.nn\.Module"),
    ("small_networks:copy.deepcopy", r"copy\.deepcopy\(\), called without arguments, failed: TypeError"),
    ("broken_import:make", "importing broken_import needs 'surely_not_installed'"),
    ("broken_syntax:make", "importing broken_syntax failed: SyntaxError"),
]


@pytest.mark.parametrize(("reference", "message"), FACTORIES, ids=[reference for reference, _ in FACTORIES])
def test_factories_that_make_no_network(
    reference: str, message: str, tiny: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_import.py").write_text("import surely_not_installed\n")
    (tmp_path / "broken_syntax.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        load_checkpoint(save(tmp_path, tiny), model=reference)


def test_the_current_folder_is_importable_only_while_loading(
    tiny: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "my_training.py").write_text("from small_networks import Shared as Network\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    loaded = load_checkpoint(save(tmp_path, tiny), model="my_training:Network")
    assert_same(loaded.network, small_networks.Shared().eval())
    assert sys.path == before


def test_mismatches_with_the_users_network_are_named(tiny: State, tmp_path: Path) -> None:
    tiny["extra"] = tiny.pop("age.bias")
    tiny["race.weight"] = tiny["race.weight"][:3]
    with pytest.raises(
        CheckpointError,
        match=r"1 missing \(age\.bias\); 1 unexpected \(extra\); 1 of another shape \(race\.weight \(3, 8\) instead of \(4, 8\)\)",
    ):
        load_checkpoint(save(tmp_path, tiny), model="small_networks:Shared")
