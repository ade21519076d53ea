"""The report: on this machine, on made-up ones, and of bundles with files that do not run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_bundles import int8_bundle, run_of, write_measured

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.doctor import children
from mtl_deploy.runtime.doctor.cli import examined, main
from mtl_deploy.runtime.doctor.libraries import libraries
from mtl_deploy.runtime.doctor.machine import machine as describe
from mtl_deploy.runtime.measured.here import Processor
from tests.fakes.gpu import EngineBundle, Simulation

MakeBundle = Callable[..., Path]
SCHEMA = Path(children.__file__).with_name("report.schema.json")


def answers(document: dict[str, Any]) -> dict[str, str | None]:
    return {one["path"]: one["reason"] for one in document["bundle"]["artifacts"]}


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the printed document, once the schema agrees and knows all of its fields."""
    jsonschema = pytest.importorskip("jsonschema")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, _closed(schema))
    return document


def _closed(schema: Any) -> Any:
    """Return a schema that refuses fields that it does not describe."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | ({"additionalProperties": False} if isinstance(closed.get("properties"), dict) else {})


def test_the_report_is_one_screen_and_names_what_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert f"numpy {np.__version__}" in text
    assert "mtl-export    has what it needs" in text


def test_json_is_what_the_schema_says(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    assert printed(capsys)["bundle"] is None
    assert main([str(make_bundle()), "--json", "--run"]) == 0
    document = printed(capsys)
    assert "CPUExecutionProvider" in document["onnxruntime"]["providers"]
    assert document["bundle"]["chosen"] == "fp32.onnx"
    assert all(one["runs"] and one["first_run_ms"] > 0 for one in document["bundle"]["artifacts"])


def test_a_report_names_no_folder_and_no_user(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "of_a_customer" / "tiny.mtl")
    (bundle / "fp32.onnx").write_bytes(b"damaged")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/home/somebody/lib")
    for arguments in ([], ["--json"], ["--run"]):
        main([str(bundle), *arguments])
        text = capsys.readouterr().out
        assert "SHA-256 is" in text
        for word in ("of_a_customer", "somebody", str(Path.home()), os.uname().nodename):
            assert word not in text.replace(os.uname().release, ""), word


def test_files_that_are_missing_or_changed_do_not_run_and_the_others_do(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle / "fp16.onnx").unlink()
    (bundle / "separate" / "age.onnx").write_bytes(b"damaged")
    for tried in (False, True):
        found = answers(examined(bundle, tried=tried))
        assert "No such file" in str(found.pop("fp16.onnx"))
        assert "the file was changed" in str(found.pop("separate/age.onnx"))
        assert set(found.values()) == {None}


def test_the_report_says_whether_the_graphs_were_measured_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    bundle = int8_bundle(tmp_path / "of_a_customer" / "model.mtl")

    def measured() -> str:
        assert main([str(bundle), "--json"]) == 0
        document = printed(capsys)
        assert "of_a_customer" not in json.dumps(document)
        return str(document["bundle"]["measured"])

    name = open_bundle(bundle).manifest.name
    assert measured() == f"not measured: mtl-bench {name}.mtl --record finds out which graph is fastest here"
    write_measured(bundle, run_of(bundle, processor=Processor("Other 9000", "riscv64", 4, "")))
    assert measured().startswith("measured.json is of another processor (Other 9000, 4 cores; here: ")
    write_measured(bundle, run_of(bundle))
    assert measured().startswith(
        "on such a machine, 2026-11-26T12:00:00+00:00; INT8 does not pay on ONNX Runtime here: int8-cpu.onnx takes 5 ms"
    )
    (bundle / "measured.json").write_bytes(b"[]")
    damaged = measured()
    assert damaged.startswith("measured.json is damaged and does not count (a list is not an object)")
    assert main([str(bundle)]) == 0
    assert f" measured {damaged} " in " ".join(capsys.readouterr().out.split())


def test_the_exit_code_is_1_where_nothing_with_all_tasks_runs(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(precisions=("fp32",))
    (bundle / "fp32.onnx").write_bytes(b"damaged")
    assert main([str(bundle)]) == 1
    assert main([str(bundle / "separate")]) == 2
    assert "not a bundle" in capsys.readouterr().err
    assert main(["--run"]) == 2


def test_graphs_run_on_openvino_where_onnx_runtime_is_missing(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = pytest.importorskip("openvino").__version__.partition("-")[0]
    bundle = make_bundle(precisions=("fp32",))
    monkeypatch.setattr("mtl_deploy.runtime.doctor.cli.find_spec", lambda _: None)
    assert main([str(bundle)]) == 0
    text = capsys.readouterr().out
    assert f"openvino      OpenVINO {version}" in text
    assert "providers     ONNX Runtime is not installed" in text
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert answers(examined(bundle, tried=False))["fp32.onnx"] == "ONNX Runtime is not installed"


def test_an_engine_is_judged_by_its_record_without_an_import(
    machine: Simulation, engine_bundle: EngineBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = engine_bundle()
    assert "TensorRT is not installed" in str(answers(examined(bundle, tried=False))["fp16.trt"])
    module = machine.install("10.3.0")
    machine.install_wheel("tensorrt", version="10.3.0")
    del module.Runtime  # importing it for good would fail here
    assert answers(examined(bundle, tried=False))["fp16.trt"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "10.1.0"}, "built for SM 8.7 with TensorRT 10.1.0; this machine: TensorRT 10.3.0"),
        ({"compute_capabilities": ("9.0",)}, "this machine: Simulated GPU, SM 8.7"),
        ({"version": "10.1.0", "version_compatible": True}, None),
        ({"compute_capabilities": ("8.0",), "hardware_compatibility": "ampere_plus"}, None),
    ],
)
def test_an_engine_of_another_machine_says_what_it_was_built_for(
    machine: Simulation, engine_bundle: EngineBundle, changes: dict[str, Any], reason: str | None
) -> None:
    machine.install("10.3.0")
    machine.install_wheel("tensorrt", version="10.3.0")
    found = answers(examined(engine_bundle(**changes), tried=False))["fp16.trt"]
    assert found is None if reason is None else reason in str(found)


def test_a_gpu_is_described(machine: Simulation) -> None:
    found = describe()
    assert found["gpus"]["found"][0]["compute_capability"] == "8.7"
    assert found["driver"]["cuda"] is not None


def test_a_file_that_ends_its_process_ends_no_report(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorRT 8.6 does where there is no driver: here the second file of three ends it by a signal."""
    bundle = make_bundle(precisions=("fp32",), separate=True)
    monkeypatch.setattr("mtl_deploy.runtime.doctor.artifacts.run", _ended_by("separate/age.onnx"))
    found = answers(examined(bundle, tried=True))
    assert found.pop("separate/age.onnx") == "ended its process (SIGSEGV)"
    assert set(found.values()) == {None}


def _ended_by(guilty: str) -> Callable[..., children.Ended]:
    """Return a start of the trial in which loading one file kills the process, in a real process."""
    module = Path(__file__).with_name("trial_that_dies.py")

    def run(name: str, arguments: list[str], timeout_s: float) -> children.Ended:
        assert name == "mtl_deploy.runtime.doctor.trial"
        return children.run("tests.runtime.doctor." + module.stem, [guilty, *arguments], timeout_s)

    return run


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "ended its process (SIGABRT)"),
        ("import sys; sys.exit('no library')", "ended its process (exit code 1: no library)"),
        ("import time; print('begun', flush=True); time.sleep(60)", "gave no answer in 2 s"),
        ("print('well')", None),
    ],
)
def test_a_child_says_how_it_ended(
    body: str, fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_child.py").write_text(f"def main():\n    {body}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = children.run("a_child", (), 2.0)
    assert ended.fault == fault
    assert ended.lines == {None: ("well",), "gave no answer in 2 s": ("begun",)}.get(fault, ())


def test_a_jetson_is_told_by_its_files(tmp_path: Path) -> None:
    for name, content in {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n",
        "var/lib/dpkg/status": "Package: zlib1g\nStatus: install ok installed\nVersion: 1.2\n\n"
        "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2+b77\n\n"
        "Package: nvidia-l4t-core\nStatus: deinstall ok config-files\nVersion: 36.4.0\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    found = describe(tmp_path)
    assert found["jetson"] == {"l4t": "36.4.3", "jetpack": "6.2+b77"}
    assert found["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["driver"]["version"] == "540.4.0"
    (tmp_path / "etc/nv_tegra_release").unlink()
    (tmp_path / "var/lib/dpkg/status").unlink()
    assert describe(tmp_path)["jetson"] is None


def test_builds_that_break_each_other_and_versions_out_of_bounds_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("onnxruntime", "1.19.2"), ("onnxruntime_gpu", "1.31.1"), ("pillow", "10.1.0")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n", encoding="utf-8"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    both, old = libraries()["problems"]
    assert "onnxruntime and onnxruntime-gpu are both installed" in both
    assert old == "onnxruntime 1.19.2 is installed, and this release asks for onnxruntime>=1.20"


def test_a_command_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    def only_numpy(name: str) -> object:
        return find_spec(name) if name == "numpy" else None

    monkeypatch.setattr("mtl_deploy.runtime.doctor.libraries.find_spec", only_numpy)
    commands = libraries()["commands"]
    assert commands["mtl-infer"] == {
        "missing": ["onnxruntime or openvino or tensorrt or tensorrt_rtx", "PIL"],
        "install": "pip install 'mtl-deploy[runtime,images]'",
    }
    assert commands["mtl-export"]["missing"][0] == "torch"
