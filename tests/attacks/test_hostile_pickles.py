"""Hostile pickles: that they are real, and that they do nothing here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

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
