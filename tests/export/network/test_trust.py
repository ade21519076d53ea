"""The rule of trust: a pickle's code never runs unless the user says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks
import torch
from checkpoints import State, assert_same, save
from torch import nn

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError, MtlError


class Payload:
    """What an attacker saves: unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("hidden", [True, False], ids=["beside-weights", "alone"])
def test_a_pickles_code_never_runs_without_trust(hidden: bool, modern: bool, tiny: State, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {"state_dict": tiny, "history": Payload(trace)} if hidden else Payload(trace)
    path = save(tmp_path, content, _use_new_zipfile_serialization=modern)
    for model in (None, "small_networks:Shared"):
        with pytest.raises(CheckpointError, match=r"asks for code, posix\.mkdir, .*nothing was run.*--trust-pickle"):
            load_checkpoint(path, model=model)
    assert not trace.exists()
    with pytest.raises(
        MtlError
    ):  # the attack is real: where the user trusts it, it runs, and there is no network in it
        load_checkpoint(path, trust_pickle=True)
    assert trace.is_dir()


def test_a_plain_pickle_never_runs(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=r"a pickle that torch\.save did not write"):
            load_checkpoint(path, trust_pickle=trust)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_a_pickled_network_needs_trust(modern: bool, tmp_path: Path) -> None:
    network = small_networks.Shared()
    path = save(tmp_path, {"epoch": 3, "model": network}, _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"asks for code, small_networks\.Shared"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, trust_pickle=True)
    assert loaded.kind == "module"
    assert loaded.description == "a pickled network under 'model', Shared"
    assert not loaded.network.training
    assert_same(loaded.network, network.eval())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["data-parallel", "compiled"])
def test_wrappers_of_a_pickled_network_come_off(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    network = small_networks.Shared().half()
    path = save(tmp_path, wrap(network))
    loaded = load_checkpoint(path, trust_pickle=True)
    assert type(loaded.network) is small_networks.Shared
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {torch.float32}


def test_weights_of_a_pickled_network_go_into_the_users(tmp_path: Path) -> None:
    path = save(tmp_path, small_networks.Shared())
    loaded = load_checkpoint(path, model="small_networks:Repeating", trust_pickle=True)
    assert type(loaded.network) is small_networks.Repeating
    assert_same(loaded.network, small_networks.Repeating().eval())


def test_another_pickle_protocol_is_refused_in_words(tiny: State, tmp_path: Path) -> None:
    path = save(tmp_path, tiny, pickle_protocol=4)
    with pytest.raises(
        CheckpointError, match=r"more than weights, or is damaged \(UnpicklingError: Unsupported operand"
    ):
        load_checkpoint(path, model="small_networks:Shared")
    assert_same(
        load_checkpoint(path, model="small_networks:Shared", trust_pickle=True).network, small_networks.Shared().eval()
    )


def test_a_pickled_network_whose_code_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, small_networks.Twins())
    monkeypatch.delattr(small_networks, "Twins")
    with pytest.raises(CheckpointError, match=r"cannot be imported here \(.*Twins.*--model"):
        load_checkpoint(path, trust_pickle=True)
