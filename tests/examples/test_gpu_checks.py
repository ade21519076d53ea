"""The script for a GPU machine, as far as it runs on a simulated one: its checks find what they are to find."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.backends.tensorrt import library as tensorrt_library
from mtl_deploy.runtime.cuda.gpu import find_gpu, has_gpu
from tests.fakes.fork import ForkingCuda
from tests.fakes.machine import engine_bundle, machine
from tests.fakes.tensorrt import make_plan
from tests.networks.split_bundle import add_engines, write_uneven_bundle

__all__ = ["engine_bundle", "machine"]

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = ("gpu_check", "gpu_checks", "gpu_library_checks", "gpu_machine", "gpu_stream_checks", "bare_loop")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A function that imports a file of the examples; they import one another by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def checks(examples: Callable[[str], ModuleType]) -> ModuleType:
    return examples("gpu_checks")


@pytest.fixture
def library_checks(examples: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return here(examples("gpu_library_checks"), monkeypatch)


@pytest.fixture
def stream_checks(examples: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return here(examples("gpu_stream_checks"), monkeypatch)


def here(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Have what runs in a process of its own run in this one, which has the simulated GPU."""

    def in_child(machine: Any, _: str, function: str, *arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            for name, value in (options.get("environment") or {}).items():
                patch.setenv(name, value)
            return json.loads(json.dumps(getattr(module, function)(machine, *arguments)))

    monkeypatch.setattr(module, "in_child", in_child)
    return module


@pytest.fixture
def context(checks: ModuleType, machine: Any, engine_bundle: Callable[..., Path], tmp_path: Path) -> Any:
    machine.install()
    return checks.Machine(engine_bundle(8), tmp_path)


def test_parts_are_compared_with_the_whole(
    checks: ModuleType, stream_checks: ModuleType, context: Any, tmp_path: Path
) -> None:
    assert "export it with --split" in stream_checks.in_parts(context)["skipped"]
    bundle = add_engines(write_uneven_bundle(tmp_path / "parts.mtl"))
    found = stream_checks.in_parts(checks.Machine(bundle, tmp_path))
    assert set(found["largest_difference"]) == {"a", "b", "c"}
    assert all(difference < 1e-3 for difference in found["largest_difference"].values())
    assert set(found["milliseconds"]) == {"whole", "all parts", "a", "b", "c"}
    assert found["graphs_off"] is None


def test_the_machine_is_described(library_checks: ModuleType, machine: Any) -> None:
    machine.install()
    machine.install_wheel("tensorrt_cu12")
    found = library_checks.versions()
    assert set(found) >= {"gpu", "sm", "driver_cuda", "date", "cuda_bindings"}
    assert found["libraries"] == {"tensorrt": "10.3.0, CUDA 12"}


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
    with pytest.raises(AssertionError, match=r"thread \d, batch"):
        checks.threads(context)


def test_a_full_gpu_and_a_lost_one_are_told_apart(checks: ModuleType, context: Any, machine: Any) -> None:
    machine.cuda.limit = 4 << 20
    assert "memory" in checks.out_of_memory(context)["error"]
    found = checks.break_and_mend(context)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in found["lost"]
    assert found["opened_again"].startswith("DeviceLostError")


def test_where_a_reset_helps_the_check_says_so(checks: ModuleType, context: Any, machine: Any) -> None:
    machine.cuda.mends = True
    assert checks.break_and_mend(context)["opened_again"] is True


def test_a_hidden_gpu_is_refused_for_running_and_building(
    library_checks: ModuleType, context: Any, machine: Any
) -> None:
    machine.libcuda.devices = 0  # what CUDA_VISIBLE_DEVICES= does
    find_gpu.cache_clear()
    found = library_checks.hidden_gpu(context)["tensorrt"]
    assert "this machine: no CUDA device" in found["running"]
    assert "this machine has no CUDA device" in found["building"]
    assert (found["runtime"], found["builder"]) == ("a Runtime", "a Builder")
    machine.libcuda.devices = 1
    find_gpu.cache_clear()
    with pytest.raises(AssertionError, match="tensorrt: the GPU is not hidden"):  # and would notice
        library_checks.hidden_gpu(context)


def test_a_hidden_gpu_is_refused_by_the_real_library_in_processes_of_their_own(
    examples: Callable[[str], ModuleType], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    checks = examples("gpu_library_checks")
    found = checks.hidden_gpu(checks.Machine(make_bundle(), tmp_path))["tensorrt-rtx"]
    assert "this machine: no CUDA " in found["running"]
    assert (found["building"], found["runtime"], found["builder"]) == ("ahead of time", "a Runtime", "a Builder")


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.4.0"])
def test_layers_by_type_are_asked_for_both_profiles_and_kept(
    library_checks: ModuleType,
    machine: Any,
    engine_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
) -> None:
    machine.install(version)
    bundle = library_checks.Machine(engine_bundle(8, version=version), tmp_path)
    content = (bundle.bundle / "fp16.onnx").read_bytes()
    monkeypatch.setattr(library_checks, "build_plan", lambda _, __, profile: make_plan(content, profile[2], profile[0]))
    found = library_checks.layers_by_type(bundle)
    assert found["dynamic"] == found["static"]
    assert sum(found["static"].values()) > 3
    for name in found:
        assert json.loads((tmp_path / f"inspector-{name}.json").read_text(encoding="utf-8"))["Layers"]
    monkeypatch.setattr(tensorrt_library.Library, "inspect", lambda *_: "{}")
    with pytest.raises(AssertionError, match=r"nothing was recognised in inspector-dynamic\.json"):
        library_checks.layers_by_type(bundle)


def test_one_model_is_closed_while_another_lives(stream_checks: ModuleType, context: Any) -> None:
    found = stream_checks.closed_first(context)
    assert found["calls"] == 9
    assert "does not fit" in found["said"]


def test_a_callers_stream_is_served_with_out_and_without(stream_checks: ModuleType, context: Any) -> None:
    found = stream_checks.callers_stream(context)
    assert found["graphs_off"] is None
    assert set(found["captured by the caller"]) == {"with out=", "without"}


def test_timings_are_taken_with_deprecation_warnings_as_errors(
    library_checks: ModuleType, context: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cuda.version = 12060
    found = library_checks.both_bindings(context, [])
    (version,) = set(found) - {"note"}
    assert found[version]["median_ms"]["compute"] == 1.0
    assert "only one major version of cuda-bindings" in found["note"]
    make = tensorrt_library.Library.create_context

    def deprecated(*arguments: Any) -> Any:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return make(*arguments)

    monkeypatch.setattr(tensorrt_library.Library, "create_context", deprecated)
    with warnings.catch_warnings(), pytest.raises(DeprecationWarning):
        library_checks.both_bindings(context, [])


def test_profile_shares_and_the_one_graph_form(
    stream_checks: ModuleType, machine: Any, engine_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    trt = machine.install()
    ForkingCuda.extend(machine.cuda)
    trt.reported = [("age_head", 1.0), ("race_head", 1.0), ("elsewhere", 2.0)]
    bundle = stream_checks.Machine(engine_bundle(8, work=2), tmp_path)
    found = stream_checks.shares_and_one_graph(bundle)
    assert found["shares"] == {"unassigned": 0.5, "head age": 0.25, "head race": 0.25}
    assert len(found["one graph"]) == 3


def test_a_version_compatible_engine_is_loaded_twice(
    library_checks: ModuleType, machine: Any, engine_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    machine.install("11.4.0")
    bundle = library_checks.Machine(engine_bundle(8, version_compatible=True), tmp_path)
    assert library_checks.load_twice(bundle) == {"loaded": 3}


def test_a_damaged_cache_must_be_refused(
    library_checks: ModuleType, machine: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([None, "exit code 2: --timing-cache x: TensorRT 10.3.0 refuses it", None])

    def run_module(*command: str) -> None:
        if (outcome := next(outcomes, None)) is not None:
            raise RuntimeError(outcome)

    monkeypatch.setattr(library_checks, "run_module", run_module)
    monkeypatch.setattr(library_checks, "Machine", lambda *_: context)
    monkeypatch.setattr(library_checks, "load_twice", lambda _: {"loaded": 3})
    assert "refuses it" in library_checks.compatible_twice(context, [])["damaged cache"]
    with pytest.raises(AssertionError, match="a damaged timing cache was accepted"):
        library_checks.compatible_twice(context, [])


def test_the_ten_checks_stand_in_order_with_a_line_each(
    examples: Callable[[str], ModuleType],
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = examples("gpu_check")

    def build(source: Path, target: Path, precision: str, options: list[str]) -> dict[str, Any]:
        if not target.exists():
            shutil.copytree(source, target)
        return {"precision": precision}

    monkeypatch.setattr(script, "build", build)
    monkeypatch.setattr(script, "bench", lambda *_: {})
    for checks in (examples("gpu_checks"), examples("gpu_library_checks"), examples("gpu_stream_checks")):
        for name, check in vars(checks).items():
            if callable(check) and check.__module__ == checks.__name__ and name[0] != "_" and name != "Machine":
                monkeypatch.setattr(checks, name, lambda *_, name=name: {"check": name})
    for table in (script.FIRST, script.THEN):
        monkeypatch.setattr(
            script, "FIRST" if table is script.FIRST else "THEN", [(n, s, lambda _: {}) for n, s, _ in table]
        )
    out = context.out / "result"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", str(context.bundle), "--out", str(out), "--minutes", "60"])
    assert script.main() == 0
    names = list(json.loads((out / "result.json").read_text(encoding="utf-8")))
    numbers = [int(name.split()[0]) for name in names]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 11))
    assert [name for name in names if not name.startswith("3 ")] == [
        "1 versions",
        "2 a hidden GPU",
        "4 layers by type, dynamic and static",
        "5 one model closed while another lives",
        "6 a caller's stream",
        "7 timings with both cuda-bindings",
        "8 profile shares and one graph",
        "9 a lost device",
        "10 a version-compatible engine and a damaged cache",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names) + 1
    assert lines[-1] == f"{len(names)} passed, 0 failed, 0 skipped"


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_the_script_says_so(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "gpu_check.py", make_bundle(), "--out", tmp_path / "gpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "NoGpuError: no CUDA driver" in result.stdout
    written = json.loads((tmp_path / "gpu" / "result.json").read_text(encoding="utf-8"))
    assert written["1 versions"]["state"] == "FAILED"
