"""The options of what is measured beside latency, and when each part is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtl_deploy.bench import run
from mtl_deploy.bench.cli import main
from mtl_deploy.bench.machine.power_meters import Meters
from mtl_deploy.bench.options import bench_parser
from mtl_deploy.bench.sections import base as sections
from mtl_deploy.bench.sections import energy
from mtl_deploy.bench.sections import registry as extras
from mtl_deploy.runtime.errors import OptionError, WorkError

MakeBundle = Callable[..., Path]
QUICK = ["--duration", "0.1", "--threads", "1", "--quiet", "--processes", "1", "--provider", "CPU"]
HERE = ["--isolation", "none", "--no-memory", "--json", "-"]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Short slots."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--starts", "-1"], "--starts -1: use 0 to"),
        (["--builds", "0"], "--builds 0: use 1 to"),
        (["--builds", "4", "--processes", "3"], "use --processes 4 or more"),
        (["--model", "a:b"], "--model is about a checkpoint"),
        (["--trust-pickle"], "--trust-pickle is about a checkpoint"),
        (["--checkpoint", "/absent.pt"], "--checkpoint /absent.pt: no such file"),
        (["--peers", "tflite"], "--peers tflite: no such peer"),
        (["--heads", "9"], "--heads 9: use 1 to 8"),
        (["--rate", "fast"], "--rate fast: use requests a second"),
        (["--deadline", "0"], "--deadline 0: use milliseconds"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        extras.check_options(bench_parser().parse_args(["absent.mtl", *options]))
    assert message in str(caught.value)


def test_graphs_are_not_built(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_bundle()), "--builds", "2", "--quiet"]) == 2
    assert "--builds: fp32.onnx is a graph, which is not built" in capsys.readouterr().err


def test_contestants_without_the_peers_that_were_asked_for_are_refused(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--contestants", "separate", "--peers", "openvino", "--quiet"]
    assert main([str(make_bundle()), *options]) == 2
    assert (
        "--contestants leaves out all that --checkpoint and --peers add: name openvino too" in capsys.readouterr().err
    )


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main([*options, *QUICK, *HERE]) == 0
    return json.loads(capsys.readouterr().out)


def test_quick_measures_what_was_asked_for_alone(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(make_bundle(work=2))
    found = measured(capsys, bundle, "--quick")
    batch = found["batches"][0]
    assert [batch[key] for key in ("where", "open_loop", "energy")] == [None] * 3
    assert [found[key] for key in ("cold_start", "break_even")] == [None] * 2
    found = measured(capsys, bundle, "--quick", "--peers", "openvino", "--rate", "500")
    assert "openvino" in {*found["contestants"], *found["excluded"]}
    assert [one["rate_per_s"] for one in found["batches"][0]["open_loop"]["contestants"]["shared"]["rates"]] == [500]
    assert found["batches"][0]["where"] is None
    assert found["cold_start"] is None


def test_parts_are_measured_unless_they_are_left_out(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, only = str(make_bundle(work=2)), ["--contestants", "separate"]
    found = measured(capsys, bundle, *only, "--starts", "1")
    assert found["batches"][0]["where"]["source"] == "ONNX Runtime's profile"
    assert found["cold_start"]["contestants"]["separate"]["starts"] == 1
    found = measured(capsys, bundle, *only, "--starts", "0", "--no-where")
    assert found["batches"][0]["where"] is None
    assert found["cold_start"] is None


def test_energy_that_was_asked_for_and_cannot_be_read_is_a_warning_with_the_reason(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "find_meters", lambda: Meters((), ("RAPL: the kernel shows no package",)))
    options = [str(make_bundle()), "--quick", "--energy"]
    (warning,) = (w for w in measured(capsys, *options)["batches"][0]["warnings"] if "energy" in w)
    assert warning == "the energy was not measured: nothing here tells of it: RAPL: the kernel shows no package"
    assert not any("energy" in w for w in measured(capsys, *options[:1], "--quick")["batches"][0]["warnings"])


def test_a_part_that_was_interrupted_ends_the_run_with_what_there_is(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = SimpleNamespace(
        interrupted=True, warnings=["interrupted after 2 rates"], text=lambda: "half a table", to_dict=dict
    )
    later: list[Any] = []
    parts = {"open_loop": ("the load was", lambda _: half), "energy": ("the energy was", later.append)}
    monkeypatch.setattr(run.extras, "BATCH_SECTIONS", parts)
    monkeypatch.setattr(extras, "RUN_SECTIONS", {"cold_start": ("the cold start was", later.append)})
    assert main([str(make_bundle()), "--batch", "1,2", *QUICK, "--isolation", "none", "--no-memory"]) == 130
    out = capsys.readouterr().out
    assert "half a table" in out
    assert "warning: interrupted after 2 rates" in out
    assert "2 images a call" not in out
    assert later == []


def test_an_interrupt_between_parts_keeps_those_before() -> None:
    def interrupt() -> Any:
        raise KeyboardInterrupt

    whole: Any = SimpleNamespace(warnings=[], text=lambda: "whole")
    measures: dict[str, tuple[str, Callable[[], Any]]] = {
        "a": ("a was", lambda: whole),
        "b": ("b was", interrupt),
        "c": ("c was", lambda: whole),
    }
    found = sections.collect(measures)
    assert found.interrupted
    assert found.text() == ["whole"]


@pytest.mark.parametrize("part", [extras.threads, extras.heads])
def test_engines_have_no_threads_and_no_synthetic_heads(part: Callable[[Any], Any]) -> None:
    arguments = SimpleNamespace(heads="1,2")
    plan = SimpleNamespace(threads=(1, 2), pair=SimpleNamespace(engines=True), arguments=arguments)
    with pytest.raises(WorkError, match="engines were measured; add --backend onnxruntime"):
        part(SimpleNamespace(plan=plan, arguments=arguments))


def test_the_machine_s_state_stands_before_and_after(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_deploy.bench.machine import environment

    states = iter([{"throttled": 1}, {"throttled": 4}])
    monkeypatch.setattr(environment, "snapshot", lambda: next(states))
    found = measured(capsys, str(make_bundle()), "--quick")
    assert (found["environment"]["before"], found["environment"]["after"]) == ({"throttled": 1}, {"throttled": 4})
    assert "the processor throttled 3 times for heat during the measurement" in found["warnings"]
