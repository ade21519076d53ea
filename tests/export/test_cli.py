"""Input that cannot be used: one line that says what to do, exit code 2, nothing written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks
import torch

from mtl_deploy.export.cli import main

NETWORKS = Path(__file__).parents[1] / "networks"  # modules that a user has in the current folder

TASKS = ["--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass"]


def weights(folder: Path, **changes: Any) -> Path:
    state = small_networks.make().state_dict()
    for name, change in changes.items():
        change(state[name.replace("__", ".")])
    path = folder / "weights.pt"
    torch.save(state, path)
    return path


def truncated(folder: Path) -> Path:
    whole = weights(folder)
    path = folder / "half.pt"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


def text_file(folder: Path) -> Path:
    path = folder / "notes.pt"
    path.write_text("these are not weights\n")
    return path


def module_file(folder: Path) -> Path:
    path = folder / "module.pt"
    torch.save(small_networks.make(), path)
    return path


def nan_weights(folder: Path) -> Path:
    return weights(folder, age__weight=lambda tensor: tensor.fill_(float("nan")))


def in_place(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "weights.mtl").mkdir()
    (folder / "out" / "weights.mtl" / "manifest.json").write_text("{}")
    return weights(folder)


FACTORY = ["--model", "small_networks:make", "--image-size", "16x16"]
CASES = [
    pytest.param(lambda folder: folder / "absent.pt", [], "no such file", id="no-such-file"),
    pytest.param(text_file, [], "notes.pt", id="not-a-checkpoint"),
    pytest.param(truncated, FACTORY + TASKS, "half.pt", id="truncated"),
    pytest.param(module_file, TASKS, "--trust-pickle", id="a-pickle-that-wants-code"),
    pytest.param(weights, TASKS, "--model", id="weights-of-an-unknown-network"),
    pytest.param(nan_weights, FACTORY + TASKS, "age.weight", id="nan"),
    pytest.param(weights, FACTORY, "--task race=multiclass", id="no-tasks-but-a-proposal"),
    pytest.param(
        weights, [*FACTORY, "--task", "years=regression", "--task", "sex=binary"], "2 tasks", id="too-few-tasks"
    ),
    pytest.param(weights, [*FACTORY, *TASKS, "--constant", "size"], "NAME=VALUE", id="a-constant-without-a-value"),
    pytest.param(weights, [*FACTORY, *TASKS, "--constant", "size=3x3"], "no argument 'size'", id="an-unknown-constant"),
    pytest.param(weights, [*FACTORY, *TASKS[:4], "--task", "race=binary"], "4 values", id="a-kind-that-does-not-fit"),
    pytest.param(weights, [*FACTORY, *TASKS[:4], "--task", "race=tertiary"], "unknown kind", id="unknown-kind"),
    pytest.param(weights, [*FACTORY, *TASKS[:4], "--task", "age=multiclass"], "two tasks", id="duplicate-names"),
    pytest.param(weights, ["--model", "small_networks:nothing", *TASKS], "nothing", id="no-such-factory"),
    pytest.param(weights, [*FACTORY, *TASKS, "--image-size", "big"], "--image-size", id="a-size-that-is-none"),
    pytest.param(weights, [*FACTORY, *TASKS, "--opset", "11"], "opset 11", id="an-opset-too-old"),
    pytest.param(weights, [*FACTORY, *TASKS, "--precision", "int4"], "int4", id="unknown-precision"),
    pytest.param(weights, [*FACTORY, *TASKS, "--samples", "1"], "2 or more, and 32", id="too-few-samples"),
    pytest.param(
        weights,
        [*FACTORY, *TASKS, "--max-drop", "rce=1%", "--calibration-data", "nowhere"],
        "no task is called 'rce'",
        id="a-budget-of-no-task",
    ),
    pytest.param(weights, [*FACTORY, *TASKS, "--images", "nowhere"], "nowhere", id="no-such-images"),
    pytest.param(weights, [*FACTORY, *TASKS, "--tolerance", "fp32"], "--tolerance", id="a-tolerance-that-is-none"),
    pytest.param(in_place, FACTORY + TASKS, "--force", id="an-existing-bundle"),
]


@pytest.mark.parametrize(("make", "arguments", "expected"), CASES)
def test_bad_input_is_one_line_and_leaves_nothing(
    make: Callable[[Path], Path],
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(NETWORKS)
    checkpoint = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    code = main([str(checkpoint), "-o", str(tmp_path / "out"), *arguments])

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert expected in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_graph_out_of_tolerance_fails_the_export_and_names_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(NETWORKS)
    arguments = [*FACTORY, *TASKS, "--precision", "fp32,fp16", "--tolerance", "fp16=1e-9", "-o", str(tmp_path / "out")]
    assert main([str(weights(tmp_path)), *arguments]) == 1
    error = capsys.readouterr().err
    assert "fp16.onnx, task 'age': error" in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "out.mtl"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    assert main([str(weights(tmp_path)), "-o", str(precious), "--force"]) == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert (precious / "thesis.txt").read_text() == "years of work"


def start(checkpoint: Path, target: Path, *, limit: int | None = None) -> subprocess.Popen[str]:
    """Start ``mtl-export`` as a process of its own; ``limit``: bytes a file may have, as on a disk that fills up."""
    code = "import sys; from mtl_deploy.export.cli import main; sys.exit(main(sys.argv[1:]))"
    if limit is not None:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); {code}"
    command = [sys.executable, "-c", code, str(checkpoint), *FACTORY, *TASKS, "-o", str(target)]
    return subprocess.Popen(
        command, cwd=NETWORKS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = weights(tmp_path)
    process = start(checkpoint, tmp_path / "deep" / "out.mtl", limit=3000)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    progress = re.compile(r"\.\.\. \d+ s$")  # on a slow machine
    assert len([line for line in error.splitlines() if not progress.search(line)]) == 1
    assert "cannot write" in error
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc to know how far the command is")
@pytest.mark.parametrize("seconds", [0.0, 2.0, 5.0])
def test_ctrl_c_leaves_no_trace_and_exits_130(seconds: float, tmp_path: Path) -> None:
    checkpoint = weights(tmp_path)
    process = start(checkpoint, tmp_path / "out.mtl")
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    if (tmp_path / "out.mtl").exists():
        pytest.skip("the export was done before the interrupt came")
    assert process.returncode == 130
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_few_samples_are_used_with_a_warning_and_precisions_in_any_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(NETWORKS)
    arguments = [str(weights(tmp_path)), *FACTORY, *TASKS, "--samples", "8", "--precision", "FP32, Fp16", "--json"]
    arguments += ["--tolerance", "FP16=0.05", "--engine", "none", "--no-separate", "-o", str(tmp_path / "few.mtl")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    said = "verified on only 8 images"
    assert f"warning: {said}" in captured.err
    manifest = json.loads(captured.out)["manifest"]
    assert any(said in note for note in manifest["provenance"]["notes"])
    assert {row["samples"] for row in manifest["verification"]} == {8}
    assert {artifact["precision"] for artifact in manifest["artifacts"]} == {"fp32", "fp16"}


def test_a_misspelt_budget_of_a_network_with_tasks_of_its_own_is_noticed_before_it_is_traced(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(*_: object, **__: object) -> None:
        raise AssertionError("the network was traced first")

    monkeypatch.setattr("mtl_deploy.export.graph.trace.trace", traced)
    arguments = [
        str(article_checkpoint),
        "--image-size",
        "64x64",
        "--max-drop",
        "ages=0.1",
        "-o",
        str(tmp_path / "a.mtl"),
    ]
    assert main([*arguments, "--calibration-data", str(tmp_path)]) == 2
    assert "no task is called 'ages'; the tasks are age, gender, race" in capsys.readouterr().err
