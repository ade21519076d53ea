"""Hostile pickles: that they are real, and that they do nothing here."""

from __future__ import annotations

import argparse
import contextlib
import pickle
from pathlib import Path

import pytest
import torch

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError
from tests.attacks import hostile_pickles, hostile_programs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("seed", [1, 2])
def test_pickles_at_random(seed: int, tmp_path: Path) -> None:
    figures = hostile_pickles.run(0.1, seed, tmp_path)
    assert {name: figures[name] for name in hostile_pickles.MUST_BE_ZERO} == dict.fromkeys(
        hostile_pickles.MUST_BE_ZERO, 0
    )
    assert figures["refused"] == figures["pickles"] == 30


def test_the_pickles_are_real(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.pt"
    found = hostile_pickles.attacks(trace)
    for name in (
        "mkdir, beside, zip 2",
        "eval, key, legacy",
        "rebuild, tensor, zip 4",
        "raw stack global",
        "plain inst",
    ):
        path.write_bytes(found[name])
        assert hostile_pickles.attempt(path) == "refused", name
        assert not trace.exists(), name
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        assert hostile_programs.ran(trace), name


def test_every_pickle_written_by_hand_is_refused(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.pt"
    for name, content in hostile_pickles.raw(trace).items():
        path.write_bytes(content)
        assert hostile_pickles.attempt(path) == "refused", name
        assert not trace.exists(), name


def test_stand_ins_take_nothing_from_a_file(tmp_path: Path) -> None:
    """Every argument and every state that a file gives a stand-in is dropped; other readers get none of them."""
    from mtl_deploy.export.network.weights.plain_values import StandIn, stand_ins

    for made, name in stand_ins():  # type: ignore[misc]
        one = made("a", 1)
        if isinstance(one, StandIn):
            one.__setstate__({"a": 1})
            assert not hasattr(one, "__dict__"), name
        else:
            assert one == {}, name
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": argparse.Namespace(lr=0.1)}, path)
    assert hostile_pickles.attempt(path) == "refused"  # for want of tensors
    names = {name for _, name in stand_ins()}  # type: ignore[misc]
    left = [one for one in torch.serialization.get_safe_globals() if isinstance(one, tuple) and one[1] in names]
    assert not left
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("model", [None, "torchvision.models:resnet18"])
def test_long_names_take_no_time_and_no_screen(model: str | None, tmp_path: Path) -> None:
    """A name is looked at as far as a network's own names reach: looking at every part would take hours."""
    path = tmp_path / "model.pt"
    torch.save({f"{part}." * 300_000 + "weight": torch.zeros(1) for part in ("net", "module", "bn", "0")}, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, model=model)
    assert len(str(caught.value)) < 2000


def test_tensors_with_hidden_methods_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    tensor = torch.zeros(3)
    tensor.to = tensor.is_floating_point = 1  # type: ignore[assignment, method-assign]
    torch.save({"state_dict": {"w": tensor}}, path)
    assert hostile_pickles.attempt(path) == "refused"
