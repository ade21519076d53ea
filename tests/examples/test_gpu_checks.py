"""The script for a GPU machine, as far as it runs on a simulated one: its checks find what they are to find."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.gpu import has_gpu

from ..runtime.conftest import engine_bundle, machine

__all__ = ["engine_bundle", "machine"]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("gpu_checks", EXAMPLES / "gpu_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_checks", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def context(checks: ModuleType, machine: Any, engine_bundle: Callable[..., Path], tmp_path: Path) -> Any:
    machine.install()
    return checks.Machine(engine_bundle(8), tmp_path)


def test_the_machine_is_described(checks: ModuleType, machine: Any) -> None:
    machine.install()
    found = checks.describe()
    assert set(found) >= {"gpu", "sm", "driver_cuda", "date", "cuda_bindings"}


def test_engines_are_compared_with_onnx_runtime(checks: ModuleType, context: Any) -> None:
    found = checks.against_onnxruntime(context)["largest_difference"]
    assert set(found) == {"fp16", "fp32"}
    assert max(found["fp32"].values()) < 1e-4


def test_the_overhead_is_measured_with_graphs_and_without(
    checks: ModuleType, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "TURNS", 30)
    monkeypatch.setattr(checks, "SETTLING", 10)
    found = checks.overhead(context)
    for name in ("graphs on", "graphs off"):
        assert set(found[name]["median_us"]) == {"bare", "model(array)", "model(pinned)"}
        assert set(found[name]["added_us"]) == {"model(array)", "model(pinned)"}
    assert found["graphs on"]["graphs_off"] is None


def test_threads_and_the_soak_pass_and_would_notice(
    checks: ModuleType, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SOAK_CALLS", 300)
    monkeypatch.setattr(checks, "THREAD_CALLS", 20)
    assert checks.threads(context)["calls"] == 160
    assert checks.soak(context)["gpu_memory_lost_MB"] == 0
    real = np.allclose
    monkeypatch.setattr(checks.np, "allclose", lambda *values, **options: not real(*values, **options))
    with pytest.raises(AssertionError, match="thread 0, batch"):
        checks.threads(context)


def test_a_full_gpu_and_a_lost_one_are_told_apart(checks: ModuleType, context: Any, machine: Any) -> None:
    machine.cuda.limit = 4 << 20
    assert "memory" in checks.out_of_memory(context)["error"]
    found = checks.break_and_mend(context)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in found["lost"]
    assert found["opened_again"] is True


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_the_script_says_so(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "gpu_check.py", make_bundle(), "--out", tmp_path / "gpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "NoGpuError: no CUDA driver" in result.stdout
    written = json.loads((tmp_path / "gpu" / "result.json").read_text(encoding="utf-8"))
    assert written["the machine"]["state"] == "FAILED"
