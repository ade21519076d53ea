"""``--recipe ci``: a pilot, and a run that is as long as that asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.comparison.change import change_of
from mtl_deploy.bench.recipe import CHANGE, PILOT_STARTS, ROUNDS, estimate
from mtl_deploy.bench.statistics.nested import Nested

MakeBundle = Callable[..., Path]


def run_of(rng: np.random.Generator, starts: int, noise: tuple[float, float], ms: float = 10.0) -> Nested:
    """Starts that differ, and rounds of a start that differ; calls hardly do."""
    between, within = noise
    return [
        [ms * np.exp(start + within * rng.standard_normal() + 0.01 * rng.standard_normal(20)) for _ in range(ROUNDS)]
        for start in between * rng.standard_normal(starts)
    ]


@pytest.mark.parametrize("noise", [(0.02, 0.01), (0.01, 0.05), (0.04, 0.02)])
def test_a_run_of_the_recipe_detects_the_change_with_the_power_that_it_says(noise: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    detected = []
    for _ in range(250):
        starts = estimate(run_of(rng, PILOT_STARTS, noise), 10.0).starts
        before, after = run_of(rng, starts, noise), run_of(rng, starts, noise, 10.0 * (1 + CHANGE))
        detected.append(change_of(1, "shared", before, after).ratio.low > 1)
    assert 0.74 <= np.mean(detected) <= 0.95


def test_a_noisier_machine_takes_longer_and_one_that_is_too_noisy_is_told_so() -> None:
    rng = np.random.default_rng(2)
    quiet, noisy, hopeless = (estimate(run_of(rng, PILOT_STARTS, (share, share)), 12.0) for share in (0.001, 0.05, 3.0))
    assert quiet.starts == 3
    assert quiet.seconds == pytest.approx(3 * 12 / PILOT_STARTS)
    assert noisy.seconds > 2 * quiet.seconds
    assert "too noisy to detect a change of 5 %" in hopeless.sentence()
    assert estimate(run_of(rng, PILOT_STARTS, (0.001, 0.001)), 12.0, batches=3).seconds == 3 * quiet.seconds


@pytest.mark.usefixtures("quick")
def test_the_command_says_how_long_it_takes_and_measures_that(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    options = ["--recipe", "ci", "--threads", "1", "--provider", "CPU", "--isolation", "none", "--no-memory"]
    assert main([str(make_bundle(work=2)), *options, "--json", str(file)]) == 0
    said = re.search(r"recipe ci: in a pilot of 6 starts, .* (\d+) starts", capsys.readouterr().err)
    assert said is not None
    result = json.loads(file.read_text())
    assert result["settings"]["processes"] == int(said[1])
    assert len(result["batches"][0]["contestants"]["shared"]["samples_ms"]) == int(said[1])
    assert list(result["contestants"]) == ["shared"]
    assert result["batches"][0]["where"] is None
    assert result["cold_start"] is None


@pytest.mark.parametrize("options", [["--quick"], ["--processes", "3"], ["--duration", "5"]])
def test_what_the_recipe_decides_is_not_decided_twice(
    options: list[str], make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), "--recipe", "ci", *options]) == 2
    assert f"leave {options[0]} out" in capsys.readouterr().err
