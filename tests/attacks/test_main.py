"""The command that runs the attacks: it fails where a figure is wrong or missing, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import __main__ as command

KNOWN = {"first": ("files lost",), "second": ("hangs", "crashes")}


def run(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: dict[str, Any], only: list[str] | None = None
) -> tuple[int, list[str]]:
    """Run the command with attacks that give these results; return its exit code and the attacks that were run."""
    ran = []

    def apart(name: str, scale: float, seed: int) -> Any:
        ran.append(name)
        if isinstance(results[name], Exception):
            raise results[name]
        return results[name]

    monkeypatch.setattr(command, "attacks", lambda: KNOWN)
    monkeypatch.setattr(command, "apart", apart)
    return command.everything(0.1, 7, state, only or []), ran


def figures(**values: int) -> dict[str, Any]:
    return {"figures": {name.replace("_", " "): value for name, value in values.items()}, "seconds": 1.0}


GOOD = {"first": figures(kills=12, files_lost=0), "second": figures(hangs=0, crashes=0)}


def test_all_figures_are_printed_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path / "deep" / "state.json", GOOD) == (0, ["first", "second"])
    out = capsys.readouterr().out
    assert "12  kills" in out
    assert "all figures that must be zero are" in out
    assert run(monkeypatch, tmp_path / "deep" / "state.json", {}) == (0, [])  # finished
    assert "12  kills" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (figures(hangs=3, crashes=0), "second: hangs is 3"),
        (figures(hangs=0), "second: crashes is missing"),
        (RuntimeError("ended with exit code -9"), "second: did not end"),
    ],
    ids=["a-fault", "a-figure-that-is-missing", "a-crash"],
)
def test_a_fault_fails_the_command(
    second: Any, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state.json"
    assert run(monkeypatch, state, GOOD | {"second": second})[0] == 1
    assert f"FAILED  {message}" in capsys.readouterr().out
    if isinstance(second, Exception):
        assert list(json.loads(state.read_text())) == ["first"]
        assert run(monkeypatch, state, GOOD) == (0, ["second"])  # what did not end is run again


def test_an_attack_that_cannot_run_here_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = GOOD | {"first": {"skipped": "no overlay can be mounted here", "seconds": 0.1}}
    assert run(monkeypatch, tmp_path / "state.json", results)[0] == 0
    assert "first: skipped: no overlay can be mounted here" in capsys.readouterr().out


def test_some_attacks_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path / "state.json", GOOD, ["second"]) == (0, ["second"])
    assert run(monkeypatch, tmp_path / "state.json", GOOD, ["third"]) == (2, [])


def test_every_attack_of_the_folder_is_found_and_has_its_test() -> None:
    found = command.attacks()
    assert {"kills", "kills_mounted", "lost_writes", "races", "soak"} <= set(found)
    for name, must_be_zero in found.items():
        assert must_be_zero
        assert list(command.HERE.glob(f"test_{name}*.py"))
