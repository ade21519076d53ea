"""Throughput of several callers, in both modes of a graph on a processor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.hosts import LocalHost
from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.specs import default_specs
from mtl_deploy.bench.sections.modes import modes
from mtl_deploy.bench.sections.modes.modes import ModeRounds, Modes, measure_modes
from mtl_deploy.runtime import RunError

MakeBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Short slots."""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_both_modes_of_both_sides_are_called_by_all_threads(make_bundle: MakeBundle, backend: str) -> None:
    pytest.importorskip(backend)
    pair = find_pair(make_bundle(work=1), None, None, backend)
    specs = {spec.name: spec for spec in default_specs(pair, Settings(threads=2, backend=backend))[:2]}
    hosts = {name: LocalHost(spec) for name, spec in specs.items()}
    found = measure_modes(hosts, make_batch(pair, 2, seed=0), 3, rounds=2, seconds=0.05).to_dict()
    for host in hosts.values():
        host.close()
    assert found["callers"] == 3
    assert list(found["contestants"]) == ["shared", "separate"]
    for one in found["contestants"].values():
        assert list(one["modes"]) == ["latency", "throughput"]
        assert "at once" in one["modes"]["throughput"]["details"]
        assert "at once" not in one["modes"]["latency"]["details"]
        for rate in (mode["images_per_s"] for mode in one["modes"].values()):
            assert 0 < rate["low"] <= rate["value"] <= rate["high"]


def test_the_gain_is_that_of_the_rates() -> None:
    slow = ModeRounds("x", (10.0, 12.0, 11.0), (100.0, 90.0))
    fast = ModeRounds("x", (20.0, 24.0, 22.0), (60.0, 50.0))
    found = Modes(2, 1.0, {"shared": {"latency": slow, "throughput": fast}})
    gain = found.gain("shared")
    assert (gain.value, gain.low, gain.high) == pytest.approx((2, 2, 2))
    assert fast.images_per_s.value == pytest.approx(3 / (1 / 20 + 1 / 24 + 1 / 22))
    assert found.to_dict()["contestants"]["shared"]["modes"]["latency"]["p50_ms"] == 95
    assert found.warnings == ()
    assert Modes(1, 1.0, {}).warnings


def test_an_error_in_a_calling_thread_is_that_of_the_measurement() -> None:
    class Failing:
        name = details = "x"

        def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            raise RunError("no memory")

        def close(self) -> None:
            pass

    with pytest.raises(RunError, match="no memory"):
        modes._call(Failing(), np.zeros((1, 1), np.uint8), 2, 1, 0.0)


def test_it_is_measured_where_it_is_asked_for_and_shown(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(modes, "SECONDS", 0.02)
    command = [
        str(make_bundle()),
        "--quick",
        "--modes",
        "--duration",
        "0.1",
        "--no-memory",
        "--isolation",
        "none",
        "-q",
    ]
    assert main([*command, "--provider", "CPU", "--details", "--json", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "called at once" in out
    (batch,) = json.loads((tmp_path / "a.json").read_text())["batches"]
    assert set(batch["modes"]["contestants"]) == {"shared", "separate"}
    gain = batch["modes"]["contestants"]["shared"]["gain"]["value"]
    line = next(line for line in out.splitlines() if line.startswith("shared ") and " throughput " in line)
    assert f"{gain:.2f}" in line
