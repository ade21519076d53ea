"""mtl-bench as a user runs it, on small real graphs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench import run
from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.memory import peak_memory
from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.contestants.specs import default_specs
from mtl_deploy.bench.machine.environment import environment
from mtl_deploy.bench.measurement.measure import Measurement, WarmUp
from mtl_deploy.bench.plan import BenchmarkPlan
from mtl_deploy.bench.results import doubts, wording
from mtl_deploy.bench.results.document import batch_document, document_of
from mtl_deploy.bench.results.report import Report, Result
from mtl_deploy.bench.results.result_file import read_result
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchContext, Sections
from mtl_deploy.bench.sections.energy.section import EnergySection
from mtl_deploy.bench.terminal.text import render
from mtl_deploy.runtime.errors import RunError

MakeBundle = Callable[..., Path]
QUICK = [
    "--starts",
    "0",
    "--no-where",
    "--duration",
    "0.3",
    "--threads",
    "1",
    "--quiet",
    "--processes",
    "1",
    "--provider",
    "CPU",
]
HERE = ["--isolation", "none", "--no-memory"]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Short slots, also in processes of their own."""


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, *QUICK, "--json", "-"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_table_and_the_answer_have_the_figures(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_bundle(work=20)), *QUICK, "--details"]) == 0
    out = capsys.readouterr().out
    for label in (
        "latency p50, ms",
        "images per second",
        "multiply-adds, G",
        "parameters, M",
        "size on disk, MB",
        "peak memory, MB",
    ):
        assert label in out
    assert "3 separate" in out
    assert ", 1 image per call, 1 thread;" in out
    assert out.startswith(("One shared pass", "No difference"))


def test_without_details_it_is_the_answer_its_warnings_a_table_and_a_line_for_each_part(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for option in QUICK if option not in ("--no-where", "--starts", "0")]
    assert main([str(make_bundle(work=20)), *options, "--starts", "1", "--contestants", "separate"]) == 0
    answer, warned, header, table, lines, end = capsys.readouterr().out.split("\n\n")
    assert answer.startswith(("One shared pass", "No difference"))
    assert "\n" not in answer
    assert "warning: the intervals come from one process and do not cover" in warned
    assert ", 1 image per call, 1 thread; 1 process, " in header
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["shared", "3"]
    titles = ["latency", "memory and size", "where the time goes", "cold start"]
    assert [line[:19].strip() for line in lines.splitlines()] == titles
    assert end == "Every table: --details here, --report FILE as a page.\n"


def test_json_has_the_figures_and_all_samples(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = make_bundle(work=20)
    arguments = [str(bundle), "--batch", "2", *QUICK]
    files = {name: tmp_path / f"result.{name}" for name in ("json", "csv")}
    assert main([*arguments, "--processes", "2", *(f"--{name}={file}" for name, file in files.items())]) == 0
    assert "2 processes" in capsys.readouterr().out
    found = read_result(files["json"])
    assert (found["schema"], found["schema_version"]) == ("mtl-bench", 2)
    assert found["bundle"] == {
        "path": str(bundle),
        "name": "tiny",
        "tasks": ["age", "gender", "race"],
        "kinds": ["regression", "binary", "multiclass"],
        "sizes": [1, 1, 3],
        "input": [8, 8],
        "channels": 3,
        "checkpoint_sha256": None,
    }
    assert (found["precision"], found["backend"]) == ("fp32", "onnxruntime")
    assert "ExecutionProvider" in found["details"]
    assert found["command"].startswith(f"mtl-bench {bundle} --batch 2 ")
    assert found["settings"]["processes"] == 2
    assert found["largest_throughput"] is None
    assert found["scaling"] == {"threads": None, "heads": None}
    (batch,) = found["batches"]
    assert (batch["batch"], batch["processes"]) == (2, 2)
    names = ["shared", "separate", "concurrent", "shared:age", "shared:gender", "shared:race"]
    assert list(found["contestants"]) == list(batch["contestants"]) == names
    assert set(batch["ratios"]) == set(batch["agreement"]) == set(names) - {"shared"}
    rows = files["csv"].read_text().splitlines()
    assert rows[0] == "contestant,batch,process,round,call,latency_ms"
    assert len(rows) == 1 + sum(one["calls"] for one in batch["contestants"].values())
    for name in names:
        figures, ratio = batch["contestants"][name], batch["ratios"].get(name)
        samples = [sample for rounds in figures["samples_ms"] for calls in rounds for sample in calls]
        assert len(figures["samples_ms"]) == len(figures["warm_up"]) == 2
        assert sum(map(len, figures["samples_ms"])) == batch["rounds"]
        assert figures["calls"] == len(samples)
        mean = figures["latency_ms"]["mean"]
        assert mean["value"] == pytest.approx(sum(samples) / len(samples), rel=1e-3)
        assert mean["low"] <= mean["value"] <= mean["high"]
        assert figures["images_per_s"] == pytest.approx(2000 / mean["value"])
        assert figures["memory_bytes"]["peak"] > figures["memory_bytes"]["libraries"] > 10e6
        assert ratio is None or ratio["low"] <= ratio["value"] <= ratio["high"]
        first = f"{name},2,1,1,1,{figures['samples_ms'][0][0][0]}"
        assert first in rows
    assert found["contestants"]["separate"]["artifacts"] == [f"separate/{t}.onnx" for t in ("age", "gender", "race")]
    sizes = {name: found["contestants"][name]["size_bytes"] for name in ("shared", "separate", "shared:age")}
    assert sizes["shared"] == (bundle / "fp32.onnx").stat().st_size
    assert sizes["shared:age"] is None
    assert set(batch["contestants"]["separate"]["parts_ms"]) == {"age", "gender", "race"}
    assert batch["contestants"]["shared"]["parts_ms"] is None
    work = {name: found["contestants"][name]["multiply_adds"] for name in ("shared", "separate")}
    assert found["ideal"]["multiply_adds"] == pytest.approx(work["separate"] / work["shared"])
    assert batch["of_ideal"] == pytest.approx(batch["ratios"]["separate"]["value"] / found["ideal"]["multiply_adds"])


def test_an_artifact_stands_for_its_bundle_at_its_precision(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, str(make_bundle() / "separate" / "race.fp16.onnx"), *HERE)
    assert found["precision"] == "fp16"
    assert found["contestants"]["shared"]["artifacts"] == ["fp16.onnx"]
    assert found["contestants"]["separate"]["artifacts"][2] == "separate/race.fp16.onnx"
    assert found["batches"][0]["contestants"]["shared"]["memory_bytes"] is None


def test_quick_is_shared_and_separate_in_one_process(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), "--quick", "--duration", "0.1", "--quiet", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["contestants"]) == ["shared", "separate"]
    assert found["batches"][0]["processes"] == 1


def test_another_precision_is_measured_beside(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(work=3)
    found = document(capsys, str(bundle), "--precision", "fp16", "--quick", "--add", "separate@fp32", *HERE)
    assert list(found["contestants"]) == ["shared", "separate", "separate@fp32"]
    assert found["contestants"]["separate@fp32"]["precision"] == "fp32"
    agreed = found["batches"][0]["agreement"]
    assert agreed["separate@fp32"]["race"]["allowed"] >= agreed["separate"]["race"]["allowed"]


def test_a_contestant_that_fails_is_left_out_and_the_others_are_measured(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run.start_host

    def start(spec: Any, **named: Any) -> Any:
        if spec.name == "concurrent":
            raise RunError("no thread to be had")
        return real(spec, **named)

    monkeypatch.setattr(run, "start_host", start)
    found = document(capsys, str(make_bundle()), *HERE)
    assert found["excluded"] == {"concurrent": "no thread to be had"}
    assert "concurrent" not in found["contestants"]
    assert "concurrent was not measured: no thread to be had" in found["batches"][0]["warnings"]


def test_a_section_that_fails_is_a_warning(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(EnergySection):
        def measure(self, context: BatchContext, settings: Any) -> Any:
            assert set(context.hosts) == set(context.measurement.names)
            raise RunError("the meter is gone")

    sections = (Failing() if section.key == "energy" else section for section in registry.SECTIONS)
    monkeypatch.setattr(registry, "SECTIONS", tuple(sections))
    found = document(capsys, str(make_bundle()), *HERE)
    assert found["batches"][0]["energy"] is None
    assert "the energy was not measured: the meter is gone" in found["batches"][0]["warnings"]


def test_memory_is_that_of_a_process_of_its_own(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), None, ("CPU",))
    settings = Settings(("CPU",), threads=1)
    one = peak_memory(pair, "shared", 1, settings)
    large = peak_memory(pair, "shared", 20000, settings)
    assert one.models > 0
    assert large.peak > one.peak + 20000 * 8 * 8 * 3  # the batch alone takes that


def test_latencies_are_printed_where_memory_cannot_be_measured(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho out of memory >&2; exit 137\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    assert main([str(make_bundle()), *QUICK, "--isolation", "none", "--details"]) == 0
    out = capsys.readouterr().out
    ended = "its process ended (exit code 137): out of memory"
    assert f"warning: measuring the memory of the shared side failed: {ended}" in out
    assert "latency p50, ms" in out
    assert "peak memory" not in out


def bad_path(name: str) -> Callable[[MakeBundle, Path], Path]:
    return lambda _, folder: folder / name


def unlisted_engine(make_bundle: MakeBundle, _: Path) -> Path:
    path = make_bundle() / "fp16.trt"
    path.write_bytes(b"plan")
    return path


def without_separate(make_bundle: MakeBundle, _: Path) -> Path:
    return make_bundle(separate=False)


def stray(make_bundle: MakeBundle, folder: Path) -> Path:
    path = folder / "stray.onnx"
    path.write_bytes((make_bundle() / "fp32.onnx").read_bytes())
    return path


def changed(make_bundle: MakeBundle, _: Path) -> Path:
    bundle = make_bundle()
    with (bundle / "fp32.onnx").open("ab") as file:
        file.write(b"x")
    return bundle


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (bad_path("absent.mtl"), [], "no such bundle or file"),
        (unlisted_engine, [], "lies in no bundle that lists it"),
        (lambda make, _: make(), ["--backend", "tensorrt"], "has no engine for TensorRT"),
        (
            lambda make, _: make() / "fp32.onnx",
            ["--backend", "tensorrt"],
            "runs on onnxruntime, --backend says tensorrt",
        ),
        (without_separate, [], "no separate fp32 model of age, gender, race"),
        (stray, [], "lies in no bundle"),
        (lambda make, _: make(batch_max=4), ["--batch", "8"], "--batch 8: fp32.onnx takes 1 to 4"),
        (lambda make, _: make(batch_max=4), ["--batch", "1,8"], "--batch 8: fp32.onnx takes 1 to 4"),
        (lambda make, _: make(), ["--batch", "0"], "--batch 0"),
        (lambda make, _: make(), ["--batch", "1,many"], "--batch 1,many: use a number, or several such as 1,8,32"),
        (lambda make, _: make(), ["--duration", "0"], "--duration 0"),
        (lambda make, _: make(), ["--precision", "int8"], "has no int8 artifact"),
        (lambda make, _: make() / "fp32.onnx", ["--precision", "fp16"], "is fp32, --precision says fp16"),
        (lambda make, _: make(), ["--provider", "TPU"], "'TPU' is not available"),
        (lambda make, _: make(), ["--seed", "-1"], "--seed -1: use 0 or more"),
        (lambda make, _: make(), ["--batch", "1000000000000"], "--batch 1000000000000: these images do not fit"),
        (lambda make, _: make(), ["--json", "/absent/result.json"], "--json /absent/result.json: no such folder"),
        (lambda make, _: make(), ["--json", "."], "--json .: a folder"),
        (lambda make, _: make(), ["--csv", "/absent/a.csv"], "--csv /absent/a.csv: no such folder"),
        (lambda make, _: make(), ["--report", "."], "--report .: a folder"),
        (lambda make, _: make(), ["--threads", "0"], "--threads 0: use 1 or more"),
        (lambda make, _: make(), ["--processes", "0"], "--processes 0: use 1 to 1000"),
        (
            lambda make, _: make(),
            ["--contestants", "other"],
            "--contestants other: no such contestant; there are shared, ",
        ),
        (lambda make, _: make(), ["--without", "shared"], "--without shared: all others are compared with it"),
        (lambda make, _: make(), ["--add", "separate"], "--add separate: use shared, separate or concurrent with a"),
        (lambda make, _: make(), ["--add", "separate@fp32"], "fp32 is what is measured already"),
        (lambda make, _: make(), ["--add", "separate@int8"], "has no shared int8 graph"),
        (changed, [], "fp32.onnx: SHA-256 is"),
    ],
    ids=[
        "absent",
        "engine",
        "no-engines",
        "backend",
        "no-separate",
        "stray",
        "batch",
        "batch-list",
        "batch-0",
        "batch-word",
        "duration",
        "precision",
        "artifact",
        "provider",
        "seed",
        "batch-huge",
        "json",
        "json-folder",
        "csv",
        "report",
        "threads",
        "processes",
        "contestants",
        "without",
        "add",
        "add-same",
        "add-absent",
        "changed",
    ],
)
def test_errors_are_one_line(
    make: Callable[[MakeBundle, Path], Path],
    arguments: list[str],
    message: str,
    make_bundle: MakeBundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(make(make_bundle, tmp_path)), "--quiet", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_contestants_that_disagree_are_not_timed(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle whose separate model of a task is another network's: intact by its hashes, wrong by its values."""
    good, other = make_bundle(tmp_path / "good.mtl"), make_bundle(tmp_path / "other.mtl", work=3)
    manifests = [json.loads((bundle / "manifest.json").read_text()) for bundle in (good, other)]
    (wrong,) = (a for a in manifests[1]["artifacts"] if a["path"] == "separate/age.onnx")
    manifests[0]["artifacts"] = [wrong if a["path"] == wrong["path"] else a for a in manifests[0]["artifacts"]]
    (good / "manifest.json").write_text(json.dumps(manifests[0]))
    (good / "separate" / "age.onnx").write_bytes((other / "separate" / "age.onnx").read_bytes())

    assert main([str(good), *QUICK]) == 1
    captured = capsys.readouterr()
    assert "task 'age': shared and separate differ by" in captured.err
    assert captured.out == ""


def test_ctrl_c_prints_what_was_measured_so_far(make_bundle: MakeBundle) -> None:
    """The progress line, which only a terminal gets, tells when a round is over."""
    code = "import sys; from mtl_deploy.bench.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(make_bundle()), "--duration", "600", "--threads", "1"]
    reader, terminal = os.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    shown = b""
    while b"round 2," not in shown:
        shown += os.read(reader, 1024)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    os.close(reader)
    assert process.returncode == 130
    assert "Traceback" not in out
    assert "warning: interrupted before its time" in out
    assert "latency p50, ms" in out


def test_several_batches_have_a_table_of_throughputs(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    found = document(capsys, str(bundle), "--batch", "1,4", "--contestants", "separate", *HERE)
    assert [one["batch"] for one in found["batches"]] == [1, 4]
    assert set(found["largest_throughput"]) == {"shared", "separate"}
    assert found["answer"].startswith("One shared pass against three separate models in sequence: ")
    assert " at batch 4. Largest throughput: shared " in found["answer"]
    assert main([str(bundle), *QUICK, "--batch", "1,4", *HERE]) == 0
    out = capsys.readouterr().out
    assert ", 1 image per call," in out
    assert ", 4 images per call," in out
    assert any(line.split() == ["images", "per", "second", "batch", "1", "batch", "4"] for line in out.splitlines())


def test_ctrl_c_in_a_later_batch_prints_the_earlier_ones(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run.measure_batch

    def interrupted(plan: BenchmarkPlan, size: int, progress: Any) -> Any:
        if size == 4:
            raise KeyboardInterrupt
        return real(plan, size, progress)

    monkeypatch.setattr(run, "measure_batch", interrupted)
    assert main([str(make_bundle()), *QUICK, "--batch", "1,4", *HERE]) == 130
    out = capsys.readouterr().out
    assert "warning: batch 4 was not measured: interrupted" in out
    assert "latency p50, ms" in out


def report(
    make_bundle: MakeBundle,
    shared: list[float],
    separate: list[float],
    *,
    others: dict[str, list[float]] | None = None,
    rounds: int = 12,
    processes: int = 3,
) -> Report:
    """A report on samples made by hand: the same ones in each round, 300 times over."""
    samples = {
        name: [[np.repeat(calls, 300) for _ in range(rounds)] for _ in range(processes)]
        for name, calls in ({"shared": shared, "separate": separate} | (others or {})).items()
    }
    measurement = Measurement(samples, {side: [WarmUp(10, stable=True)] * processes for side in samples})
    pair = find_pair(make_bundle(work=20), None, ("CPU",))
    specs = {spec.name: spec for spec in default_specs(pair, Settings()) if spec.name in samples}
    details = dict.fromkeys(specs, "a backend")
    return Report(pair, specs, 1, details, measurement, {}, [])


def text(found: Report, *, details: bool = True) -> str:
    """What the command prints of one batch size."""
    specs = tuple(found.specs.values())
    plan = BenchmarkPlan(
        pair=found.pair,
        specs=specs,
        settings=Settings(),
        batches=(found.batch,),
        isolated=False,
        processes=found.measurement.processes,
        duration=None,
        seed=0,
        memory=False,
        quick=True,
        beside=False,
        sections={},
        environment=environment(),
        command="mtl-bench",
    )
    return render(document_of(Result(plan, [found], Sections({}, []))), details=details)


def test_the_answer_says_how_close_to_the_ideal_it_came(make_bundle: MakeBundle) -> None:
    found = report(make_bundle, [9, 10, 11], [28, 29, 30])
    assert found.ratios["separate"].value == pytest.approx(2.9)
    assert "2.90 times as fast as three separate models" in wording.answer(found)
    assert f"allow {found.ideal:.2f}: {290 / found.ideal:.0f} % of the ideal" in wording.answer(found)
    assert batch_document(found)["of_ideal"] == pytest.approx(2.9 / found.ideal)
    assert doubts.warnings(found) == []
    assert "p99, 95 % intervals in ms: shared 11.00 to 11.00, separate 30.00 to 30.00." in text(found)


def test_an_interval_that_contains_one_is_no_difference(make_bundle: MakeBundle) -> None:
    found = report(make_bundle, [9, 10, 11], [9, 10, 11])
    assert wording.answer(found).startswith("No difference between one shared pass and three separate models")
    assert batch_document(found)["ratios"]["separate"]["difference"] is False
    assert "no difference" in text(found)


@pytest.mark.parametrize(
    ("processes", "rounds", "message"),
    [
        (1, 1, "come from 1 round: measure for longer"),
        (1, 12, "come from one process and do not cover what a restart changes; measure with --processes 3"),
        (2, 12, "come from 2 processes and are wide"),
    ],
)
def test_too_few_processes_or_rounds_are_a_warning(
    make_bundle: MakeBundle, processes: int, rounds: int, message: str
) -> None:
    found = report(make_bundle, [9, 10, 11], [28, 29, 30], rounds=rounds, processes=processes)
    (warning,) = doubts.warnings(found)
    assert message in warning


def test_a_machine_too_noisy_for_the_claim_is_a_warning(make_bundle: MakeBundle) -> None:
    found = report(make_bundle, [9, 10, 11], [28, 29, 30])
    for start, rounds in enumerate(found.measurement.samples["separate"]):
        for i in range(4 * start, len(rounds), 2):  # each start has fewer slow rounds than the one before
            rounds[i] = rounds[i] * 1.5
    spread, rough = doubts.warnings(found)
    assert spread.startswith("the rounds of 3 separate in sequence spread by ")
    assert "too noisy, or the time too short, for more than a rough ratio of these" in rough


def test_a_warning_about_another_contestant_does_not_stand_before_the_table(make_bundle: MakeBundle) -> None:
    found = report(make_bundle, [9, 10, 11], [28, 29, 30], others={"concurrent": [19, 20, 21]})
    for start, rounds in enumerate(found.measurement.samples["concurrent"]):
        for i in range(4 * start, len(rounds), 2):
            rounds[i] = rounds[i] * 1.5
    assert doubts.answer_warnings(found) == []
    title = found.specs["concurrent"].title
    assert [title in warning for warning in doubts.warnings(found)] == [True, True]
    brief, whole = text(found, details=False), text(found)
    assert "warning: " not in brief
    assert "2 warnings about other parts: --details\n" in brief
    assert whole.count("warning: ") == 2
    assert "other parts" not in whole
