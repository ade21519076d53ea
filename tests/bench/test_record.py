"""``mtl-bench --record``, and what mtl-bench says about INT8 that does not pay."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from measured_bundles import USUAL, int8_bundle, run_of, write_measured

from mtl_deploy.bench import record
from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.pair import find_pair
from mtl_deploy.bench.record import int8_measured, int8_notes
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, digest
from mtl_deploy.runtime.console.progress import Progress
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.measured import measure
from mtl_deploy.runtime.measured.here import libraries, processor
from mtl_deploy.runtime.measured.record import Run, read

MakeBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return int8_bundle(tmp_path / "model.mtl")


def test_the_graphs_are_measured_here_and_load_chooses_by_it(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(bundle / "manifest.json")
    elsewhere = run_of(bundle, processor=replace(processor(), name="Other 9000"))
    write_measured(bundle, elsewhere)
    assert main([str(bundle), "--record", "--quiet"]) == 0
    said = capsys.readouterr().out
    kept, run = read(bundle).runs
    assert kept == elsewhere
    assert (run.processor, run.libraries, run.threads) == (processor(), libraries(), None)
    assert f"Measured in turn, 1 image per call, on {run.on}" in said
    with load(bundle, precision="int8") as model:
        assert "measured here: " in model.why
        assert model.why in said
    assert digest(bundle / "manifest.json") == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["model.mtl"]
    assert not [path for path in bundle.iterdir() if path.name.startswith(".") and path.name != ".cache"]


def test_it_is_printed_as_json_for_one_number_of_threads(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), "--record", "--quiet", "--threads", "1", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == json.loads((bundle / MEASURED_FILE).read_text())["runs"][0]
    assert document["measured"]["threads"] == 1
    file = tmp_path / "out.json"
    assert main([str(bundle), "--record", "-q", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["bundle"] == str(bundle)
    assert [run.threads for run in read(bundle).runs] == [1, None]
    assert main([str(bundle), "--record", "-q", "--json", str(file)]) == 2
    assert "exists; pass --force" in capsys.readouterr().err


def test_a_damaged_file_is_named_and_replaced(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / MEASURED_FILE).write_bytes(b"{}")
    assert main([str(bundle), "--record", "--quiet"]) == 0
    said = capsys.readouterr().err
    assert (
        f"warning: {bundle / MEASURED_FILE} is damaged and does not count (field 'version' is missing); it is replaced"
        in said
    )
    assert len(read(bundle).runs) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_bundle_that_cannot_be_written_is_refused_before_the_work(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.chmod(0o555)
    try:
        assert main([str(bundle), "--record", "--quiet"]) == 2
    finally:
        bundle.chmod(0o755)
    assert "you may not write there" in capsys.readouterr().err
    assert not (bundle / MEASURED_FILE).exists()


def test_where_writing_fails_the_former_file_stays(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = write_measured(bundle, run_of(bundle)).read_bytes()

    def full(kind: str, path: Path) -> None:
        if kind == "create" and path.parent == bundle:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.before = full
    try:
        assert main([str(bundle), "--record", "--quiet"]) == 2
    finally:
        disk.before = None
    assert f"error: --record {bundle / MEASURED_FILE}: No space left on device" in capsys.readouterr().err
    assert (bundle / MEASURED_FILE).read_bytes() == former
    assert {path.suffix for path in bundle.iterdir()} == {".onnx", ".npz", ".json"}


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--peers", "openvino", "--duration", "3"], "leave out --duration, --peers"),
        (["--precision", "int8"], "leave out --precision"),
        (["--quick"], "leave out --quick"),
        (["--threads", "1,2"], "name one"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_options_that_have_no_effect_are_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str], more: list[str], word: str
) -> None:
    assert main([str(bundle), "--record", "--quiet", *more]) == 2
    assert word in capsys.readouterr().err
    assert not (bundle / MEASURED_FILE).exists()


def test_it_is_for_bundles(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle / "int8.onnx"), "--record"]) == 2
    assert "name the bundle" in capsys.readouterr().err
    assert main([str(bundle / "manifest.json"), "--record", "--quiet"]) == 0
    assert len(read(bundle).runs) == 1


def _with_separate(bundle: Path) -> Path:
    """Let each shared graph of a bundle with one task be its separate one too, so that there is something to compare."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for artifact in list(manifest["artifacts"]):
        for task in artifact["tasks"]:
            manifest["artifacts"].append(artifact | {"role": "separate", "tasks": [task]})
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_what_was_measured_is_compared_on_what_it_was_measured_for(bundle: Path) -> None:
    pytest.importorskip("openvino")
    _with_separate(bundle)
    write_measured(bundle, run_of(bundle), run_of(bundle, USUAL | {("int8-cpu.onnx", "openvino"): 1.0}, threads=1))
    pair = find_pair(bundle, "int8", None)
    assert (pair.shared.path, pair.backend) == ("int8.onnx", "openvino")
    assert {artifact.precision for artifact in pair.separate} == {"int8"}
    pair = find_pair(bundle, "int8", None, None, 1)
    assert (pair.shared.path, pair.backend) == ("int8-cpu.onnx", "openvino")
    pair = find_pair(bundle / "int8.onnx", None, None, "onnxruntime")
    assert (pair.shared.path, pair.backend) == ("int8.onnx", "onnxruntime")


def test_int8_that_does_not_pay_is_said_with_the_figures(bundle: Path) -> None:
    _with_separate(bundle)
    write_measured(bundle, run_of(bundle))
    pair = find_pair(bundle, "int8", None, "onnxruntime")
    (line,) = int8_notes(pair, None, None)
    assert line.startswith(
        "INT8 does not pay on ONNX Runtime here: int8-cpu.onnx takes 5 ms, fp32.onnx 4.4 ms (1.14 times"
    )
    assert int8_measured(pair, None, None, Progress(quiet=True)) == ()  # said already
    assert int8_notes(find_pair(bundle, "fp32", None, "onnxruntime"), None, None) == ()
    assert int8_notes(find_pair(bundle, "int8", None, "openvino"), None, None) == ()
    assert int8_notes(pair, 1, None) == ()  # not measured with one thread
    (bundle / MEASURED_FILE).write_bytes(b"")
    (line,) = int8_notes(pair, None, None)
    assert "is damaged and does not count" in line


def test_without_measurements_the_whole_run_compares_int8_with_fp32_itself(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(run: Run, backends: tuple[str, ...]) -> list[str]:  # what is said depends on times
        assert {str(one) for one in run.candidates if one.usable} == {
            "fp32.onnx on ONNX Runtime",
            "int8-cpu.onnx on ONNX Runtime",
        }
        return [f"compared on {' and '.join(backends)} with {run.threads} thread"]

    monkeypatch.setattr(record, "where_int8_does_not_pay", lines)
    bundle = make_bundle(precisions=("fp32", "int8-cpu"))
    what = [
        "--precision",
        "int8",
        "--backend",
        "onnxruntime",
        "--contestants",
        "separate",
        "--no-where",
        "--starts",
        "0",
    ]
    how = ["--threads", "1", "--duration", "0.2", "--processes", "1", "--isolation", "none", "--no-memory", "--quiet"]
    assert main([str(bundle), *what, *how, "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = "compared on onnxruntime with 1 thread"
    assert expected in document["warnings"]
    assert expected in document["answer_warnings"]
    assert main([str(bundle), *what[:4], "--quick", *how[:4], *how[6:], "--json", "-"]) == 0
    assert expected not in json.loads(capsys.readouterr().out)["warnings"]
    assert not (bundle / MEASURED_FILE).exists()
