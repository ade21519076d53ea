"""Cold starts of real processes that load real graphs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.bench.sections.cold_start import starts as cold_start
from mtl_deploy.bench.sections.cold_start.section import ColdStartSection
from mtl_deploy.bench.sections.cold_start.starts import PHASES, measure_cold_start, median
from mtl_deploy.bench.statistics.nested import Interval
from mtl_deploy.runtime.errors import OptionError, WorkError
from tests.bench.printed import printed

MakeBundle = Callable[..., Path]


def specs_of(bundle: Path) -> tuple[list[Spec], Any]:
    pair = find_pair(bundle, None, None)
    settings = Settings(threads=1)
    tasks = pair.shared.tasks
    return [
        Spec("shared", "shared", "shared", bundle, (pair.shared,), tasks, "fp32", settings),
        Spec("separate", "3 separate", "separate", bundle, pair.separate, tasks, "fp32", settings),
        Spec(f"shared:{tasks[0]}", "only one", "subset", bundle, (pair.shared,), tasks[:1], "fp32", settings),
        Spec("pytorch", "PyTorch", "pytorch", bundle, (), tasks, "fp32", settings),
    ], make_batch(pair, 2, 0)


def test_each_start_has_its_phases(make_bundle: MakeBundle) -> None:
    specs, batch = specs_of(make_bundle())
    said: list[str] = []
    found = measure_cold_start(specs, batch, starts=2, seed=0, progress=said.append)
    assert list(found.contestants) == ["shared", "separate", specs[2].name]  # an application starts no PyTorch
    for starts in found.contestants.values():
        assert all((starts.phases_ms[phase] > 0).all() for phase in PHASES)
        assert len(starts.samples_ms) == 2
    document = found.to_dict()
    shared = document["contestants"]["shared"]
    assert shared["starts"] == 2
    assert set(shared["phases_ms"]) == set(PHASES)
    assert shared["total_ms"]["low"] <= shared["total_ms"]["value"] <= shared["total_ms"]["high"]
    assert document["ratio"]["low"] <= document["ratio"]["high"]
    assert "first prediction" in printed(ColdStartSection(), found)
    assert said == ["Cold start: filling caches", "Cold start: 1 of 2", "Cold start: 2 of 2"]


def test_the_child_imports_the_runtime_and_nothing_of_the_benchmark() -> None:
    code = (
        "import sys; import mtl_deploy.bench.sections.cold_start.child; from mtl_deploy.runtime import load; "
        "print([name for name in sys.modules if name.startswith('mtl_deploy.bench.')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["mtl_deploy.bench.sections", "mtl_deploy.bench.sections.cold_start"]
    assert result.stdout.strip() == str([*names, "mtl_deploy.bench.sections.cold_start.child"])


def test_a_start_imports_nothing_from_the_working_directory(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, batch = specs_of(make_bundle())
    for name in ("json", "numpy", "mtl_deploy", "runpy"):  # what a user's folder may hold
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file in the working directory')", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    assert len(measure_cold_start(specs[:1], batch, starts=1).contestants["shared"].samples_ms) == 1


def test_a_start_that_fails_says_why(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    specs, batch = specs_of(bundle)
    missing = replace(specs[0], artifacts=(replace(specs[0].artifacts[0], path="gone.onnx"),))
    with pytest.raises(WorkError, match=r"the cold start of shared failed: .*gone\.onnx"):
        measure_cold_start([missing], batch, starts=1)
    with pytest.raises(OptionError, match="0 cold starts"):
        measure_cold_start(specs, batch, starts=0)


def test_an_interrupt_keeps_whole_turns(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    specs, batch = specs_of(make_bundle())
    calls = []

    def start(spec: Spec, file: Path) -> dict[str, float]:
        calls.append(spec.name)
        if len(calls) == 6:  # caches, a whole turn, half a turn
            raise KeyboardInterrupt
        return dict.fromkeys(PHASES, 1.0 if spec.kind == "shared" else 3.0)

    monkeypatch.setattr(cold_start, "_start", start)
    found = measure_cold_start(specs[:2], batch, starts=5)
    assert found.interrupted
    assert found.contestants["shared"].samples_ms.tolist() == [4.0]
    assert found.ratio == Interval(3, 3, 3)
    assert found.warnings == [
        "the cold start rests on 1 of each contestant: its interval says little",
        "the cold starts were interrupted after 1 of 5",
    ]
    calls[:] = ["before"] * 4  # in the first turn
    with pytest.raises(KeyboardInterrupt):
        measure_cold_start(specs[:2], batch, starts=5)


def test_a_median_of_few_lies_between_the_smallest_and_the_largest() -> None:
    assert median(np.array([5.0, 1, 2, 3, 9])) == Interval(3, 1, 9)
    many = median(np.arange(100, dtype=np.float64))
    assert (many.low, many.high) == (39, 60)
