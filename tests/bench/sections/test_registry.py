"""The options of what is measured beside latency, and when each part is measured."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mtl_deploy.bench import whole
from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.cli import main
from mtl_deploy.bench.machine import power_meters
from mtl_deploy.bench.machine.power_meters import Meters
from mtl_deploy.bench.options import add_operand, options_parser, read_options
from mtl_deploy.bench.results.result_file import read_result
from mtl_deploy.bench.results.schema import assembled
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, RunContext, RunSection, collect
from mtl_deploy.bench.sections.scaling.heads_section import HeadsSection, HeadsSettings
from mtl_deploy.bench.sections.scaling.threads_section import ThreadsSection, ThreadsSettings
from mtl_deploy.runtime.errors import OptionError, WorkError
from tests.bench.documents import document

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
        (["--rate", "fast"], "--rate fast: use requests per second"),
        (["--deadline", "0"], "--deadline 0: use milliseconds"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options: list[str], message: str) -> None:
    made = options_parser()
    add_operand(made)
    with pytest.raises(OptionError) as caught:
        read_options(made.parse_args(["absent.mtl", *options]))
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
    monkeypatch.setattr(power_meters, "find_meters", lambda: Meters((), ("RAPL: the kernel shows no package",)))
    options = [str(make_bundle()), "--quick", "--energy"]
    (warning,) = (w for w in measured(capsys, *options)["batches"][0]["warnings"] if "energy" in w)
    assert warning == "the energy was not measured: nothing here measures it: RAPL: the kernel shows no package"
    assert not any("energy" in w for w in measured(capsys, *options[:1], "--quick")["batches"][0]["warnings"])


class Drops:
    """What a made-up section measures."""

    warnings = ("it may be the dew",)
    interrupted = False

    def to_dict(self) -> dict[str, Any]:
        return {"drops": {"value": 41.5, "low": 40.0, "high": 44.0}}


@dataclass(frozen=True)
class RainSettings:
    minutes: int


class Rain(BatchSection[RainSettings]):
    """A made-up section that owns all of itself."""

    key, words, title = "rain", "the rain was", "Rain on the machine"

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "required": ["drops"], "properties": {"drops": {"$ref": "#/$defs/interval"}}}

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument("--rain", type=int, default=0)

    def settings(self, arguments: argparse.Namespace) -> RainSettings:
        if arguments.rain < 0:
            raise OptionError(f"--rain {arguments.rain}: use 0 or more")
        return RainSettings(arguments.rain)

    def asked(self, settings: RainSettings) -> bool:
        return settings.minutes > 0

    def measure(self, context: BatchContext, settings: RainSettings) -> Drops | None:
        return Drops() if settings.minutes else None

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:
        table = Table("Rain", [Column("rain"), Column("drops", ends="between")], [["here", Estimate(found["drops"])]])
        return [table, Sentence(["It rained ", Figure(found["drops"]["value"]), " drops."])]

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        return [Figure(found["drops"]["value"]), " drops"]


def test_a_section_is_added_by_one_line_of_the_registry(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "SECTIONS", (*registry.SECTIONS, Rain()))
    file, page = tmp_path / "result.json", tmp_path / "page.html"
    options = [str(make_bundle()), "--quick", *QUICK, *HERE[:3], "--report", str(page)]
    assert main([*options, "--rain", "-1"]) == 2
    assert "--rain -1: use 0 or more" in capsys.readouterr().err
    assert main([*options, "--rain", "3", "--json", str(file)]) == 0
    assert "\nrain on the machine  41.5 drops\n" in capsys.readouterr().out
    assert main([*options, "--rain", "3", "--json", str(file), "--details", "--force"]) == 0
    out = capsys.readouterr().out
    assert (
        "rain  drops  between\n----  -----  ------------\nhere   41.5  40.0 to 44.0\n\nIt rained 41.5 drops.\n" in out
    )
    assert "warning: it may be the dew\n" in out
    (batch,) = read_result(file)["batches"]
    Draft202012Validator(assembled()).validate(read_result(file))
    assert batch["rain"] == Drops().to_dict()
    assert batch["where"] is None
    shown = page.read_text(encoding="utf-8")
    assert '<h2 id="rain-title">Rain on the machine</h2>' in shown
    assert (
        'It rained <data value="41.5" data-path="/batches/0/rain/drops/value" data-show="number">41.5</data> drops.'
        in shown
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--rain" in capsys.readouterr().out


def test_a_section_that_does_not_say_what_it_found_in_one_line_cannot_be_made() -> None:
    silent = type("Silent", (BatchSection,), {name: getattr(Rain, name) for name in ("settings", "measure", "blocks")})
    with pytest.raises(TypeError, match="summary"):
        silent()


@pytest.mark.parametrize("kind", ["graphs", "engines"])
def test_each_section_says_in_one_line_what_it_found(kind: str) -> None:
    made = At(document(engines=kind == "engines", calls=40))
    (batch,), roster = made["batches"], Roster(made)
    for section in registry.SECTIONS:
        found = (batch if isinstance(section, BatchSection) else made).down(section.place)
        if found:
            (line,) = terminal.render([Sentence(section.summary(found, roster))])
            assert 10 < len(line) < 140
            assert "\n" not in line
            assert "n/a" not in line
            assert section.key == "break_even" or re.search(r"\d", line)
        assert "".join(map(str, section.summary(At({}), roster))) == ""


class Half(Rain):
    def measure(self, context: BatchContext, settings: RainSettings) -> Drops | None:
        found = Drops()
        found.interrupted = True
        return found


class Later(RunSection[None]):
    key, words, title = "later", "what is later was", "Later"

    def settings(self, arguments: argparse.Namespace) -> None:
        return

    def measure(self, context: RunContext, settings: None) -> None:
        raise AssertionError("measured after an interrupt")

    def blocks(self, found: At, roster: Roster) -> list[Block]:
        return []

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        return []


def test_a_section_that_was_interrupted_ends_the_run_with_what_there_is(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SECTIONS", (Half(), *registry.SECTIONS, Later()))
    assert (
        main([str(make_bundle()), "--batch", "1,2", *QUICK, "--isolation", "none", "--no-memory", "--details"]) == 130
    )
    out = capsys.readouterr().out
    assert "It rained 41.5 drops." in out
    assert "warning: it may be the dew" in out
    assert "where the time goes" not in out
    assert "2 images per call" not in out


def test_an_interrupt_between_sections_keeps_those_before() -> None:
    whole = Drops()

    def measure(section: Any) -> Any:
        if section.key == "open_loop":
            raise KeyboardInterrupt
        return whole

    found = collect(registry.batch_sections(), measure)
    assert found.interrupted
    assert found.found == {"engine_timings": whole, "where": whole, "open_loop": None, "modes": None, "energy": None}


@pytest.mark.parametrize(
    ("section", "settings"), [(ThreadsSection(), ThreadsSettings((1, 2))), (HeadsSection(), HeadsSettings((1, 2)))]
)
def test_engines_have_no_threads_and_no_synthetic_heads(section: Any, settings: Any) -> None:
    plan = SimpleNamespace(pair=SimpleNamespace(engines=True))
    with pytest.raises(WorkError, match="engines were measured; add --backend onnxruntime"):
        section.measure(SimpleNamespace(plan=plan), settings)


def test_the_machine_s_state_stands_before_and_after(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter([{"throttled": 1}, {"throttled": 4}])
    monkeypatch.setattr(whole, "snapshot", lambda: next(states))
    found = measured(capsys, str(make_bundle()), "--quick")
    assert (found["environment"]["before"], found["environment"]["after"]) == ({"throttled": 1}, {"throttled": 4})
    assert "the processor throttled 3 times for heat during the measurement" in found["warnings"]
