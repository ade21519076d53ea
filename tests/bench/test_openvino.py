"""mtl-bench with OpenVINO as the run's own backend: shared and separate on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.contestants.memory import peak_memory
from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.results.schema import PUBLISHED
from mtl_deploy.runtime.errors import OptionError

pytest.importorskip("openvino")

MakeBundle = Callable[..., Path]
QUICK = ["--duration", "0.3", "--threads", "1", "--quiet", "--processes", "1", "--json", "-"]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Short slots, also in processes of their own."""


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, *QUICK]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_both_sides_run_on_it_in_processes_of_their_own(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(make_bundle(work=2))
    found = document(capsys, bundle, "--backend", "openvino", "--starts", "1", "--contestants", "separate,concurrent")
    assert found["backend"] == "openvino"
    assert found["details"].startswith("OpenVINO ")
    assert list(found["contestants"]) == ["shared", "separate", "concurrent"]
    (batch,) = found["batches"]
    assert all(one["details"].startswith("OpenVINO ") for one in found["contestants"].values())
    assert batch["contestants"]["shared"]["memory_bytes"] is not None
    assert any("nodes are profiled by ONNX Runtime" in warning for warning in batch["warnings"])
    jsonschema.validate(found, json.loads(PUBLISHED.read_text()))


def test_what_the_runtime_would_choose_is_measured_unless_it_is_the_peer(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_deploy.runtime import selection

    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    bundle = make_bundle(precisions=("fp32", "int8-cpu"))
    here = ["--quick", "--isolation", "none", "--no-memory"]
    assert document(capsys, str(bundle), "--precision", "int8", *here)["backend"] == "openvino"
    assert document(capsys, str(bundle / "int8-cpu.onnx"), *here)["backend"] == "openvino"
    assert document(capsys, str(bundle), *here)["backend"] == "onnxruntime"
    beside = document(capsys, str(bundle), "--precision", "int8", "--peers", "openvino", *here)
    assert beside["backend"] == "onnxruntime"
    assert list(beside["contestants"]) == ["shared", "separate", "openvino"]
    command = [str(bundle), "--backend", "openvino", "--peers", "openvino", *here, *QUICK]
    assert main(command) == 2
    assert "--peers openvino: the run itself uses it" in capsys.readouterr().err
    other = document(capsys, str(bundle), "--backend", "openvino", "--peers", "onnxruntime:CPU", *here)
    assert list(other["contestants"]) == ["shared", "separate", "onnxruntime:CPU"]
    assert other["contestants"]["onnxruntime:CPU"]["details"].startswith("ONNX Runtime")


def test_memory_is_that_of_a_process_that_runs_it(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    pair = find_pair(bundle, None, None, "openvino")
    assert (pair.backend, pair.why) == ("openvino", "asked for")
    found = peak_memory(pair, "separate", 1, Settings(threads=1, backend="openvino"))
    assert found.models > 0
    with pytest.raises(OptionError, match="providers are ONNX Runtime's"):
        find_pair(bundle, None, ("CPU",), "openvino")
