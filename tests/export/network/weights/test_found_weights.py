"""Weights as they lie in files: under prefixes and wrappers, beside averages, criteria, profilers' counters and plain values."""

from __future__ import annotations

import argparse
import datetime
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_networks
import torch
import wild
import wild_files
import wild_traps
from checkpoints import State, assert_same, save
from torch import nn

from mtl_deploy.export.network.checkpoint import Loaded, load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError, OptionError

SHARED = "small_networks:Shared"


def plain() -> dict[str, Any]:
    return dict(small_networks.Shared().state_dict())


def halved(state: State) -> State:
    return {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def assert_holds(loaded: Loaded, state: State) -> None:
    found = loaded.network.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


# Files that people have

SAID = {
    "compiled.pt": "prefix _orig_mod. removed",
    "parallel_inside.pt": "prefix module. removed",
    "checkpointed.pt": "prefix _checkpoint_wrapped_module. removed",
    "both.pt": "prefix _checkpoint_wrapped_module., _orig_mod. removed",
    "profiled.pt": "tensors that are not the network's, not used: total_ops (12 tensors), total_params (12 tensors)",
    "lightning.ckpt": "not used: criterion.weight, accuracy.total, teacher.* (3 tensors)",
    "averaged.pt": "--weights takes others: 'ema.module'",
    "average_alone.pt": "prefix module. removed",
    "qat.pt": "trained for quantization by torch.ao (FX or eager mode)",
}


@pytest.mark.parametrize("name", SAID)
def test_the_files_weights_are_found_and_the_rest_is_named(name: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(wild_files.FILES[name](tmp_path / name), model=SHARED)
    assert SAID[name] in "\n".join([loaded.description, *loaded.notes])
    if name != "qat.pt":
        assert_holds(loaded, plain())


@pytest.mark.parametrize("name", sorted(wild.TASKS.keys() - {"yolopv2", "yolopose"}))
def test_files_of_public_networks_need_no_trust(name: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(wild.checkpoint(name, tmp_path), model=f"wild:{name}")
    for key, value in wild.trained(name).state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(loaded.network.state_dict()[key], value, rtol=0, atol=0)
    notes = "\n".join([loaded.description, *loaded.notes])
    for said in {"mivolo": ["fds.running_mean"], "pfld": ["under 'pfld_backbone' (not used: 'auxiliarynet')"]}.get(
        name, []
    ):
        assert said in notes


def test_tied_layers_saved_once_count_as_given(tmp_path: Path) -> None:
    loaded = load_checkpoint(wild_files.tied(tmp_path / "tied.safetensors"), model="wild_traps:Tied")
    assert_holds(loaded, wild_traps.Tied().state_dict())
    state = wild_traps.Tied().state_dict()
    state["gender.weight"] = state["gender.weight"] + 1
    with pytest.raises(
        CheckpointError, match=r"'age.weight' and 'gender.weight' are one tensor in the network and two"
    ):
        load_checkpoint(save(tmp_path, state), model="wild_traps:Tied")
    alone = {f"net.{name}": value for name, value in wild_traps.Tied().state_dict().items() if "gender" not in name}
    assert_holds(load_checkpoint(save(tmp_path, alone), model="wild_traps:Tied"), wild_traps.Tied().state_dict())


def test_a_network_whose_methods_return_nothing(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, plain()), model="wild_traps:Silent")
    assert type(loaded.network) is wild_traps.Silent
    assert not loaded.network.training


# Which of several


def lightning_with_average() -> State:
    state = plain()
    return {**under("ema_model.module.", halved(state)), **under("model.", state), "criterion.weight": torch.ones(4)}


CHOICES: list[Any] = [
    pytest.param(lambda: {"model": plain(), "ema": halved(plain())}, "ema", id="ema"),
    pytest.param(lambda: {"state_dict": plain(), "state_dict_ema": halved(plain())}, "state_dict_ema", id="timm"),
    pytest.param(wild_files.averaged, "ema", id="nested"),
    pytest.param(wild_files.averaged, "ema.module", id="nested-in-full"),
    pytest.param(lambda: {"state_dict": lightning_with_average()}, "state_dict.ema_model", id="prefix"),
    pytest.param(lightning_with_average, "ema_model", id="prefix-at-the-top"),
]


@pytest.mark.parametrize(("content", "weights"), CHOICES)
def test_the_option_chooses_and_the_choice_is_printed(content: Any, weights: str, tmp_path: Path) -> None:
    path = content(tmp_path / "model.pt") if content is wild_files.averaged else save(tmp_path, content())
    factor = 0.9 if content is wild_files.averaged else 0.5
    default = load_checkpoint(path, model=SHARED)
    assert_holds(default, plain())
    assert any("several weights for this network" in note and weights.split(".")[0] in note for note in default.notes)
    chosen = load_checkpoint(path, model=SHARED, weights=weights)
    torch.testing.assert_close(chosen.network.state_dict()["age.weight"], plain()["age.weight"] * factor)


def test_an_unknown_choice_lists_what_there_is(tmp_path: Path) -> None:
    path = save(tmp_path, {"model": plain(), "ema": halved(plain())})
    with pytest.raises(OptionError, match=r"--weights 'average': the file holds 'model', 'ema'; choose one"):
        load_checkpoint(path, model=SHARED, weights="average")
    with pytest.raises(
        OptionError, match=r"--weights 'optimizer': the file holds 'ema_model', 'model', 'criterion'|'criterion'"
    ):
        load_checkpoint(save(tmp_path, lightning_with_average()), model=SHARED, weights="optimizer")
    with pytest.raises(OptionError, match=r"--weights 'criterion': no tensor of the network stands under that name"):
        load_checkpoint(save(tmp_path, lightning_with_average()), model=SHARED, weights="criterion")


def test_what_fits_wins_over_a_better_name(tmp_path: Path) -> None:
    other = {"state_dict": {"weight": torch.zeros(3)}, "generator": plain(), "discriminator": {"a": torch.zeros(1)}}
    loaded = load_checkpoint(save(tmp_path, other), model=SHARED)
    assert "under 'generator' (not used: 'state_dict', 'discriminator')" in loaded.description
    assert_holds(loaded, plain())


def test_an_error_says_which_weights_it_is_about(tmp_path: Path) -> None:
    content = {"state_dict": {"weight": torch.zeros(3)}, "generator": {"a": torch.zeros(1)}}
    with pytest.raises(
        CheckpointError,
        match=r"13 missing .*these are the weights under 'state_dict'; --weights takes others: 'generator'",
    ):
        load_checkpoint(save(tmp_path, content), model=SHARED)


def test_a_network_saved_in_parts_is_put_together(tmp_path: Path) -> None:
    parts: dict[str, State] = {}
    for name, value in plain().items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    assert_holds(load_checkpoint(save(tmp_path, {**parts, "optimizer": {"state": {}}}), model=SHARED), plain())


# What else is there


@pytest.mark.parametrize(
    "others",
    [
        {"best_fitness": np.array([0.71]), "map50": np.float64(0.5), "rng": ("MT19937", np.zeros(3, np.uint32), 1)},
        {"args": argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace(a=np.float32(1)))},
        {"date": datetime.datetime(2026, 1, 2), "hist": defaultdict(list, a=[1.0])},
    ],
    ids=["numpy", "namespace", "containers"],
)
@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_plain_values_beside_the_weights_need_no_trust(others: dict[str, Any], modern: bool, tmp_path: Path) -> None:
    path = save(tmp_path, {"model": plain(), **others}, _use_new_zipfile_serialization=modern)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        torch.load(path, weights_only=True)
    loaded = load_checkpoint(path, model=SHARED)
    assert_holds(loaded, plain())
    assert f"'{next(iter(others))}'" in "\n".join(loaded.notes)


def test_weights_as_arrays_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, {name: value.numpy() for name, value in plain().items()})
    with pytest.raises(CheckpointError, match=r"holds NumPy arrays \(backbone.0.weight, .*not tensors"):
        load_checkpoint(path, model=SHARED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone.0.bias", torch.zeros(8)),
        ("backbone.7.weight", torch.zeros(8)),
        ("backbone.2.weight", torch.zeros(1)),
    ],
    ids=["bias", "layer", "prelu"],
)
def test_tensors_of_another_network_are_refused(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"1 unexpected \({name}\)"):
        load_checkpoint(save(tmp_path, {**plain(), name: value}), model=SHARED)


def test_a_deeper_resnet_is_not_taken_for_a_shallower_one(tmp_path: Path) -> None:
    import torchvision

    path = save(tmp_path, torchvision.models.resnet34().state_dict())
    with pytest.raises(CheckpointError, match=r"96 unexpected \(layer1.2.conv1.weight"):
        load_checkpoint(path, model="torchvision.models:resnet18")


def test_missing_tensors_are_counted_and_shapes_named(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in plain().items() if not name.startswith("backbone")}
    state["model.age.weight"] = torch.zeros(1, 9)
    with pytest.raises(
        CheckpointError,
        match=r"8 missing \(backbone.0.weight, .*, and \d more\); 1 of another shape \(age.weight \(1, 9\) instead of \(1, 8\)\)",
    ) as caught:
        load_checkpoint(save(tmp_path, state), model=SHARED)
    assert len(str(caught.value)) < 600


# Extra state


def test_extra_state_is_passed_on(tmp_path: Path) -> None:
    path = wild_files.extra(tmp_path / "extra.pt")
    assert load_checkpoint(path, model="wild_traps:ExtraState").network is not None
    state = torch.load(path)
    state["_extra_state"] = {"version": 3}
    with pytest.raises(CheckpointError, match=r"the network rejects the tensors: .*version 3"):
        load_checkpoint(
            save(tmp_path, {f"module.{name}": value for name, value in state.items()}), model="wild_traps:ExtraState"
        )


@pytest.mark.parametrize(
    "value",
    [
        b"\x80\x04.",
        {"a": [b"x"]},
        torch.zeros(3, dtype=torch.uint8),
        [torch.zeros(3, dtype=torch.int8)],
        bytearray(b"x"),
    ],
    ids=["bytes", "nested", "uint8", "int8", "bytearray"],
)
def test_extra_state_that_may_be_a_pickle_needs_trust(value: object, tmp_path: Path) -> None:
    state = {**wild_traps.ExtraState().state_dict(), "_extra_state": value}
    with pytest.raises(CheckpointError, match=r"'_extra_state' holds a .* may unpickle.*--trust-pickle"):
        load_checkpoint(save(tmp_path, state), model="wild_traps:ExtraState")
    with pytest.raises(CheckpointError, match="the network rejects the tensors"):  # its own code gets it
        load_checkpoint(save(tmp_path, state), model="wild_traps:ExtraState", trust_pickle=True)


# Training libraries


def mmengine(state: State) -> object:
    return {
        "meta": {"epoch": 12, "cfg": "model = dict()", "dataset_meta": {"classes": ("a", "b")}},
        "state_dict": {**state, "data_preprocessor.mean": torch.zeros(3)},
        "message_hub": {"log_scalars": {"loss": np.zeros(3)}, "runtime_info": {"iter": 12}},
        "optimizer": {"state": {}},
    }


def lightning(state: State) -> object:
    return {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("net._orig_mod.", state),
        "hyper_parameters": {"lr": 0.1, "out": Path("runs")},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "loops": {},
    }


LIBRARIES: dict[str, Callable[[State], object]] = {
    "mmengine": mmengine,
    "lightning": lightning,
    "parallel-then-compiled": lambda state: under("_orig_mod.module.", state),
    "compiled-then-parallel": lambda state: under("module._orig_mod.", state),
    "fsdp": lambda state: under("_fsdp_wrapped_module.", state),
    "averaged": lambda state: {"model": under("module.", state) | {"n_averaged": torch.tensor(3)}},
    "accelerate": lambda state: under("base.network.", state),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_files_of_training_libraries(library: str, tmp_path: Path) -> None:
    assert_holds(load_checkpoint(save(tmp_path, LIBRARIES[library](plain())), model=SHARED), plain())


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_of_shards_is_called_by_its_name(name: str, tmp_path: Path) -> None:
    shards = {"backbone.0.weight": name.replace(".index.json", "-00001-of-00002")}
    (tmp_path / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}))
    with pytest.raises(CheckpointError, match=r"an index of weights in several files.*put them together"):
        load_checkpoint(tmp_path / name, model=SHARED)


def test_half_a_network_in_half_precision(tmp_path: Path) -> None:
    content = {"epoch": -1, "model": None, "ema": small_networks.Shared().half(), "updates": 9}
    loaded = load_checkpoint(save(tmp_path, content), trust_pickle=True)
    assert loaded.description == "a pickled network under 'ema', Shared; converted from float16 to float32"
    path = wild.checkpoint("yolopose", tmp_path)
    assert "converted from float16" in load_checkpoint(path, trust_pickle=True).description
    assert isinstance(load_checkpoint(path, model="wild:yolopose", trust_pickle=True).network, nn.Module)


def test_a_criterion_of_the_networks_own_names_does_not_hide_it(tmp_path: Path) -> None:
    state = {**under("criterion.model.", {"age.weight": torch.ones(1, 8)}), **under("student.", plain())}
    loaded = load_checkpoint(save(tmp_path, state), model=SHARED)
    assert_holds(loaded, plain())
    assert_same(loaded.network, small_networks.Shared().eval())
