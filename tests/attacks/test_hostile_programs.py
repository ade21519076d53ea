"""A hundredth of the hostile programs, and each known attack: that it is real, and that it does nothing here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError
from tests.attacks import hostile_programs
from tests.attacks.program_attacks import IMAGE, REAL, Base, known, write

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.make()


def load_and_run(path: Path) -> None:
    torch.export.load(path).module()(IMAGE)


@pytest.mark.parametrize("name", REAL)
def test_a_known_attack_is_real_and_does_nothing_here(
    name: str, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    trace = tmp_path / "trace"
    path = write(tmp_path / "attack.pt2", known()[name](base, trace))
    with pytest.raises(CheckpointError, match=r"nothing was run.*--trust-pickle|PyTorch 2\.7 or older"):
        load_checkpoint(path)
    assert not hostile_programs.ran(trace)
    with contextlib.suppress(Exception):
        load_and_run(path)
    assert hostile_programs.ran(trace)


@pytest.mark.parametrize("name", sorted(set(known()) - set(REAL)))
def test_what_is_not_known_is_refused(name: str, base: Base, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write(tmp_path / "attack.pt2", known()[name](base, trace))
    with pytest.raises(CheckpointError, match=r"nothing was run.*--trust-pickle"):
        load_checkpoint(path)
    assert not hostile_programs.ran(trace)


def test_names_that_are_code_are_real_and_do_nothing_here(base: Base, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    real = {"input 'x={hidden}'", "parameter 'x\" + str({hidden}) + \"'", "buffer 'x\" + str({hidden}) + \"'"}
    chosen = {
        name: records for name, records in hostile_programs.names(base, trace) if name.replace("\\'", "'") in real
    }
    assert len(chosen) == len(real)
    for name, records in chosen.items():
        path = write(tmp_path / "attack.pt2", records)
        assert hostile_programs.attempt(path) == "refused", name
        assert not hostile_programs.ran(trace), name
        with contextlib.suppress(Exception):
            load_and_run(path)
        assert hostile_programs.ran(trace), name


def test_the_program_itself_loads(base: Base, tmp_path: Path) -> None:
    assert hostile_programs.attempt(write(tmp_path / "model.pt2", base.with_({}))) == "harmless"


def test_programs_and_names_at_random(tmp_path: Path) -> None:
    figures = hostile_programs.run(0.01, 1, tmp_path)
    assert {name: figures[name] for name in hostile_programs.MUST_BE_ZERO} == dict.fromkeys(
        hostile_programs.MUST_BE_ZERO, 0
    )
    assert figures["programs"] == 4
    assert figures["names"] == 4
