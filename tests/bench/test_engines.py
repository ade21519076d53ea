"""mtl-bench on bundles with engines: on a simulated GPU, and on this machine where it has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.memory import measure_memory
from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.results.wording import FORMS
from mtl_deploy.bench.sections.engine_timings.timings import COLUMNS, WAYS
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cuda.gpu import has_gpu

EngineBundle = Callable[..., Path]
QUICK = [
    "--starts",
    "0",
    "--no-where",
    "--duration",
    "0.2",
    "--threads",
    "1",
    "--quiet",
    "--no-memory",
    "--processes",
    "1",
]
NO_GPU = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, *QUICK, "--json", "-"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


# without a GPU, for real


@NO_GPU
def test_an_engine_without_a_gpu_is_one_line_with_the_command_that_measures_its_graph(
    engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = engine_bundle(library="tensorrt-rtx", version="1.7.1", compute_capabilities=("8.6",))
    assert main([str(bundle / "fp16.trt"), *QUICK]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    start = f"error: {bundle}/fp16.trt: built for SM 8.6 with TensorRT-RTX 1.7.1; this machine: no CUDA "
    assert line.startswith(start)
    assert line.endswith(f"; measure its graph instead: mtl-bench {bundle}/fp16.onnx")


@NO_GPU
def test_a_separate_engine_names_its_own_graph(engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = engine_bundle()
    assert main([str(bundle / "separate" / "age.fp16.trt"), *QUICK]) == 2
    assert capsys.readouterr().err.endswith(f"mtl-bench {bundle}/separate/age.fp16.onnx\n")


@NO_GPU
def test_engines_that_were_asked_for_without_a_gpu_name_the_command_for_the_graphs(
    engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = engine_bundle()
    assert main([str(bundle), "--backend", "tensorrt", *QUICK]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this machine: no CUDA " in line
    assert line.endswith(f"measure the graphs instead: mtl-bench {bundle} --backend onnxruntime")


@NO_GPU
def test_a_bundle_whose_engines_do_not_fit_has_its_graphs_measured_and_says_so(
    engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    bundle = engine_bundle()
    assert main([str(bundle), *QUICK, "--isolation", "none"]) == 0
    out = capsys.readouterr().out
    assert f"warning: {bundle}/fp16.trt: built for SM 8.7 with TensorRT 10.3.0; this machine: no CUDA " in out
    assert "; the graphs were measured" in out
    assert "One shared pass" in out or "No difference" in out
    assert "GPU timings" not in out


@NO_GPU
def test_graphs_that_were_asked_for_are_measured_without_a_word_on_engines(
    engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    found = document(capsys, str(engine_bundle()), "--backend", "onnxruntime", "--isolation", "none")
    (batch,) = found["batches"]
    assert not any("built for" in warning for warning in batch["warnings"])
    assert "one_graph" not in found["contestants"]
    assert found["backend"] == "onnxruntime"
    assert batch["engine_timings"] is None


# on a simulated GPU


def test_the_tables_name_every_form_and_every_part_of_a_call(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(engine_bundle()), *QUICK, "--batch", "2", "--details"]) == 0
    out = capsys.readouterr().out
    assert ": fp16, 2 images per call, CUDA graphs on;" in out
    assert "TensorRT 10.3.0, Simulated GPU" in out
    ways = (
        "with transfers, no graph (trtexec 10)  ",
        "with transfers, CUDA graph  ",
        "no transfers, no graph  ",
        "no transfers, CUDA graph (trtexec 11)  ",
    )
    for text in (*FORMS.values(), *COLUMNS.values(), *ways, "GPU timings, median ms"):
        assert text in out
    answer = out.splitlines()[0]
    assert answer.startswith("One shared pass against three separate engines: in sequence ")
    assert all(form in answer for form in FORMS.values())
    assert answer.count("95 % interval") == 3
    assert "of the ideal against the fastest of these" in answer


def test_json_has_each_form_with_its_ratio_and_each_way_with_its_samples(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, str(engine_bundle()))
    (batch,) = found["batches"]
    assert (found["schema_version"], found["backend"], found["settings"]["isolation"]) == (2, "tensorrt", "none")
    assert list(found["contestants"]) == list(batch["contestants"]) == ["shared", *FORMS]
    assert found["contestants"]["shared"]["artifacts"] == ["fp16.trt"]
    for form in FORMS:
        assert found["contestants"][form]["artifacts"] == [f"separate/{t}.fp16.trt" for t in ("age", "gender", "race")]
    shared, separate = (batch["contestants"][side] for side in ("shared", "separate"))
    assert shared["activation_bytes"] * 3 == separate["activation_bytes"] > 0
    assert set(separate["parts_ms"]) == {"age", "gender", "race"}
    for form in FORMS:
        figures, ratio = batch["contestants"][form], batch["ratios"][form]
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert sum(map(len, figures["samples_ms"])) == batch["rounds"]
        assert figures["images_per_s"] == pytest.approx(1000 / figures["latency_ms"]["mean"]["value"])
    timings = batch["engine_timings"]
    assert timings["graphs_off"] is None
    for side in ("shared", "separate"):
        assert list(timings["sides"][side]) == [way.key for way in WAYS]
        for way in timings["sides"][side].values():
            assert set(way["samples_ms"]) == set(way["median_ms"]) == set(COLUMNS)
            assert all(len(samples) == way["calls"] > 0 for samples in way["samples_ms"].values())
    # the simulated clock gives a millisecond between any two marks: a copy in, an engine, a copy out; three of each in sequence
    with_copies = {side: timings["sides"][side]["transfers,graph"]["median_ms"] for side in ("shared", "separate")}
    assert [with_copies["shared"][part] for part in ("h2d", "compute", "d2h", "latency")] == [1, 1, 1, 3]
    assert [with_copies["separate"][part] for part in ("h2d", "compute", "d2h", "latency")] == [3, 3, 3, 9]
    assert timings["sides"]["separate"]["no_transfers,graph"]["median_ms"]["latency"] == 3


def test_several_batches_end_in_one_table_and_the_largest_throughputs(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = engine_bundle()
    found = document(capsys, str(bundle), "--batch", "8,1")
    assert [one["batch"] for one in found["batches"]] == [1, 8]
    for name, largest in found["largest_throughput"].items():
        figures = [one["contestants"][name] for one in found["batches"]]
        assert largest["images_per_s"] == max(one["images_per_s"] for one in figures)
    assert main([str(bundle), *QUICK, "--batch", "1,8", "--details"]) == 0
    out = capsys.readouterr().out
    assert out.count("One shared pass against three separate engines") == 3  # of each batch, and of both
    assert "ratio 3 separate as one CUDA graph" in out
    assert "Largest throughput: shared " in out
    assert "3 separate in sequence" in out


def test_a_batch_that_does_not_fit_the_memory_leaves_the_smaller_ones(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_deploy.bench import run
    from mtl_deploy.runtime.errors import DeviceMemoryError

    real = run.start_host

    def start(spec: Any, **named: Any) -> Any:
        if spec.name == "shared":
            started.append(spec)
        if len(started) == 2:
            raise DeviceMemoryError("the GPU's memory is full")
        return real(spec, **named)

    started: list[Any] = []
    monkeypatch.setattr(run, "start_host", start)
    assert main([str(engine_bundle()), *QUICK, "--batch", "1,2,4"]) == 1
    out = capsys.readouterr().out
    assert "warning: batch 2 was not measured: the GPU's memory is full" in out
    assert "One shared pass against" in out


def test_without_cuda_graphs_there_is_no_single_graph_and_no_warning(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, str(engine_bundle()), "--no-cuda-graphs")
    (batch,) = found["batches"]
    assert set(found["contestants"]) == {"shared", "separate", "concurrent"}
    assert not any("CUDA graph" in warning for warning in batch["warnings"])
    assert list(batch["engine_timings"]["sides"]["shared"]) == ["transfers,no_graph", "no_transfers,no_graph"]
    assert gpu.cuda.calls["cuGraphLaunch"] == 0


def test_graphs_that_could_not_be_recorded_are_a_warning_with_the_reason(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    trt = gpu.install()
    trt.refuse_capture = True
    found = document(capsys, str(engine_bundle()))
    (batch,) = found["batches"]
    assert set(found["contestants"]) == {"shared", "separate", "concurrent"}
    assert set(found["excluded"]) == {"one_graph"}
    warnings = "\n".join(batch["warnings"])
    assert "CUDA graphs were off although asked for: " in warnings
    assert "one_graph was not measured: " in warnings
    assert batch["engine_timings"]["graphs_off"] is not None


def test_engines_that_disagree_are_not_timed(
    gpu: Any, engine_bundle: EngineBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = engine_bundle()
    other = good.with_name("other.mtl")
    good.rename(other)
    good = engine_bundle(work=3)
    manifests = [json.loads((bundle / "manifest.json").read_text()) for bundle in (good, other)]
    (wrong,) = (a for a in manifests[1]["artifacts"] if a["path"] == "separate/gender.fp16.trt")
    manifests[0]["artifacts"] = [wrong if a["path"] == wrong["path"] else a for a in manifests[0]["artifacts"]]
    (good / "manifest.json").write_text(json.dumps(manifests[0]))
    (good / wrong["path"]).write_bytes((other / wrong["path"]).read_bytes())
    assert main([str(good), *QUICK]) == 1
    captured = capsys.readouterr()
    assert "task 'gender': shared and separate differ by" in captured.err
    assert "build the engines again" in captured.err
    assert captured.out == ""


def test_forms_that_disagree_are_not_timed_and_named(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_deploy.bench.contestants.forms import AtOnce

    real = AtOnce.__call__
    monkeypatch.setattr(AtOnce, "__call__", lambda self, batch: {k: v + 1e4 for k, v in real(self, batch).items()})
    found = document(capsys, str(engine_bundle()))
    assert set(found["contestants"]) == {"shared", "separate"}
    assert set(found["excluded"]) == {"concurrent", "one_graph"}
    assert "shared and separate (3 separate on one stream each) differ by" in found["excluded"]["concurrent"]
    assert any("one_graph was not measured" in warning for warning in found["batches"][0]["warnings"])


def test_engines_are_loaded_anew_so_often_as_asked(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(engine_bundle()), *QUICK, "--processes", "2", "--json", "-"]) == 0
    (batch,) = json.loads(capsys.readouterr().out)["batches"]
    assert batch["processes"] == 2
    assert all(len(one["warm_up"]) == len(one["samples_ms"]) == 2 for one in batch["contestants"].values())


def test_each_start_runs_another_build(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated library does not build, so a build is a copy."""
    from mtl_deploy.bench import run
    from mtl_deploy.bench.contestants.peers import builds
    from mtl_deploy.bench.contestants.processes import Ended

    def build(module: str, arguments: list[str]) -> Ended:
        made.append(Path(shutil.copytree(arguments[0], arguments[arguments.index("--output") + 1])))
        return Ended(0, "", "")

    real = run.start_host

    def start(spec: Any, **named: Any) -> Any:
        assert spec.path.is_dir()
        started.append((spec.name, spec.path.name))
        return real(spec, **named)

    made: list[Path] = []
    started: list[tuple[str, str]] = []
    monkeypatch.setattr(builds, "run", build)
    monkeypatch.setattr(run, "start_host", start)
    options = [*QUICK, "--processes", "3", "--builds", "2", "--contestants", "separate", "--json", "-"]
    bundle = engine_bundle()
    assert main([str(bundle), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"]["builds"], found["settings"]["processes"]) == (2, 3)
    assert [path.name for path in made] == ["build1.mtl", "build2.mtl"]
    assert not any(path.exists() for path in made)
    in_turn = [path for path in ("build1.mtl", "build2.mtl", "build1.mtl") for _ in range(2)]
    assert started == list(zip(["shared", "separate"] * 3, in_turn, strict=True))
    assert main([str(bundle), "--builds", "3", "--processes", "2", "--quiet"]) == 2
    assert "--builds 3: each start of the contestants runs another build" in capsys.readouterr().err


def test_a_plan_that_the_library_refuses_names_the_graph_to_measure(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = engine_bundle(plans=lambda _: b"another release's plan")
    assert main([str(bundle / "fp32.trt"), *QUICK]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "refuses it" in line
    assert line.endswith(f"measure its graph instead: mtl-bench {bundle}/fp32.onnx")


# memory


@pytest.mark.parametrize("side", ["shared", "separate"])
def test_gpu_memory_is_what_a_side_takes_of_it(gpu: Any, engine_bundle: EngineBundle, side: str) -> None:
    bundle = engine_bundle()
    pair = find_pair(bundle, None, None)
    found = measure_memory(bundle / pair.shared.path, side, 4, Settings(), gpu=True)
    engines = [open_bundle(bundle).path / artifact.path for artifact in pair.side(side)]
    assert found.gpu is not None
    assert found.gpu > len(engines) * (4096 + 8000)  # a simulated engine and its activations
    assert found.peak >= found.libraries


def test_gpu_memory_is_a_row_and_the_batch_reaches_the_process(
    gpu: Any, engine_bundle: EngineBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own does not see the simulated GPU, so the command line is read here."""
    from mtl_deploy.bench.contestants import memory
    from mtl_deploy.bench.contestants.processes import Ended

    asked: list[list[str]] = []

    def answer(module: str, arguments: list[str]) -> Ended:
        assert module == memory.__name__
        asked.append(arguments)
        found = memory.Memory(100_000_000, 300_000_000, 700_000_000 if "separate" in arguments else 400_000_000)
        return Ended(0, json.dumps(asdict(found)), "")

    monkeypatch.setattr(memory, "run", answer)
    bundle = engine_bundle()
    measured = [argument for argument in QUICK if argument != "--no-memory"]
    assert main([str(bundle), *measured, "--batch", "4", "--no-cuda-graphs"]) == 0
    assert "shared 400 MB of GPU memory" in (out := capsys.readouterr().out)
    assert "; 3 separate 700 MB of GPU memory" in out
    assert asked == [
        [f"{bundle}/fp16.trt", side, "--batch", "4", "--threads=1", "--no-cuda-graphs", "--gpu"]
        for side in ("shared", "separate")
    ]
