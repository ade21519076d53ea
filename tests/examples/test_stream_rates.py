from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/stream_rates.py"
MakeBundle = Callable[..., Path]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_it_prints_both_streams(make_bundle: MakeBundle) -> None:
    found = run(make_bundle(), "--slow", "race", "--frames", 20, "--rounds", 2, "--size", "16x24")
    assert found.returncode == 0, found.stderr
    assert "all tasks, every frame" in found.stdout
    assert "race for every 10. frame" in found.stdout
    assert "median of 2 pairs: " in found.stdout


@pytest.mark.parametrize("task", ["shoe-size"])
def test_an_unknown_task_is_named(make_bundle: MakeBundle, task: str) -> None:
    found = run(make_bundle(), "--slow", task)
    assert found.returncode != 0
    assert f"every= names '{task}'" in found.stderr
