from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from split_bundle import write_uneven_bundle

EXAMPLE = Path(__file__).parents[2] / "examples/stream_rates.py"
MakeBundle = Callable[..., Path]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_it_prints_all_streams(tmp_path: Path) -> None:
    bundle = write_uneven_bundle(tmp_path / "a.mtl")
    found = run(bundle, "--slow", "c", "--frames", 20, "--rounds", 2, "--size", "16x24")
    assert found.returncode == 0, found.stderr
    for stream in ("all tasks at 30 Hz", "c at 3 Hz, cut graphs", "c at 3 Hz, in parts"):
        assert stream in found.stdout
    assert "medians of 2 rounds with 20 frames each" in found.stdout


def test_a_bundle_without_parts_has_two(make_bundle: MakeBundle) -> None:
    found = run(make_bundle(), "--slow", "race", "--frames", 20, "--rounds", 2, "--size", "16x24")
    assert found.returncode == 0, found.stderr
    assert "fp32.onnx has no parts to run it in" in found.stdout
    assert "race at 3 Hz, cut graphs" in found.stdout
    assert "race at 3 Hz, in parts" not in found.stdout


@pytest.mark.extended
def test_without_a_bundle_it_makes_one() -> None:
    found = run("--frames", 10, "--rounds", 1, "--size", "224x224")
    assert found.returncode == 0, found.stderr
    assert "split/fp32/head-segmentation.onnx" in found.stdout
    assert "segmentation at 3 Hz, in parts" in found.stdout


@pytest.mark.parametrize("task", ["shoe-size"])
def test_an_unknown_task_is_named(make_bundle: MakeBundle, task: str) -> None:
    found = run(make_bundle(), "--slow", task)
    assert found.returncode != 0
    assert f"every= names '{task}'" in found.stderr
