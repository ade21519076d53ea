"""The JSON Schema that ships with the package describes what is written, wholly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import mtl_deploy.bench
from mtl_deploy.bench.cli import main
from mtl_deploy.bench.machine import power_meters
from mtl_deploy.bench.machine.power_meters import Meters
from mtl_deploy.bench.results.result_file import SCHEMA_VERSION, read_result
from mtl_deploy.bench.results.schema import PUBLISHED, assembled
from mtl_deploy.bench.sections.energy import measure as energy
from mtl_deploy.bench.sections.load import open_loop, search
from mtl_deploy.bench.sections.where.ideal import ideal_weights
from tests.bench.documents import document

SCHEMA = json.loads((Path(str(mtl_deploy.bench.__file__)).parent / "result.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
QUICK = ["--threads", "1", "--quiet", "--processes", "1"]


class Clockwork:
    """A meter that counts ten joules a second."""

    source, domain, counts = "RAPL", "a clock", True

    def read(self) -> float:
        return 10 * time.monotonic()


def problems(result: Any) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in VALIDATOR.iter_errors(result)]


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Yield the sections that were not measured."""
    sections = ("where", "open_loop", "energy", "cold_start", "threads", "heads", "break_even", "largest_throughput")
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner is None and key in sections:
                yield f"{path}/{key}"
            yield from nulls(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from nulls(inner, path)


def test_the_published_schema_is_made_of_the_sections_own() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == assembled(), (
        "run python -m mtl_deploy.bench.results.schema"
    )


def test_the_schema_is_one_and_describes_this_version() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


@pytest.mark.slow
def test_graphs_with_every_section(
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(power_meters, "find_meters", lambda: Meters((Clockwork(),), ()))
    monkeypatch.setattr(energy, "SLOT_S", 0.01)
    monkeypatch.setattr(open_loop, "_LONGEST", 2)  # the search for the highest rate would take minutes
    monkeypatch.setattr(search, "CONFIRMED", 8)
    monkeypatch.setattr(search, "STEP", 2.0)
    file = tmp_path / "result.json"
    options = [
        "--batch",
        "1,2",
        "--duration",
        "0.2",
        "--rate",
        "200",
        "--deadline",
        "1000",
        "--heads",
        "1,2",
        "--energy",
    ]
    options += ["--isolation", "none", "--starts", "1", "--json", str(file), "--report", str(tmp_path / "report.html")]
    options += ["--contestants", "separate,shared:age,shared:gender,shared:race,openvino", "--peers", "openvino"]
    assert main([str(make_bundle(work=3)), *options, *QUICK, "--threads", "1,2", "--provider", "CPU", "--details"]) == 0
    out = capsys.readouterr().out
    found = read_result(file)
    assert problems(found) == []
    assert list(nulls(found)) == []
    for text in (
        "where the time goes",
        "under load",
        "energy, RAPL",
        "cold start, ms",
        "heads  ",
        "threads  ",
        "Sharing ",
    ):
        assert text in out
    assert out.splitlines()[0] == found["answer"]
    assert found["environment"]["before"]["processor_s"]["all"] < found["environment"]["after"]["processor_s"]["all"]
    assert list(found["batches"][0]["open_loop"]["contestants"]) == ["shared", "separate"]
    assert set(found["batches"][0]["energy"]["contestants"]) == {"shared", "separate", "openvino"}
    assert [row["threads"] for row in found["scaling"]["threads"]["rows"]] == [1, 2]
    assert [row["heads"] for row in found["scaling"]["heads"]["rows"]] == [1, 2]
    assert found["batches"][0]["where"]["lost"]["bytes"] == found["ideal"]["bytes"]
    one = found["scaling"]["threads"]["rows"][0]["contestants"]["shared"]  # the run's own, not measured twice
    assert one["p50_ms"] == found["batches"][0]["contestants"]["shared"]["latency_ms"]["p50"]
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_engines(
    gpu: Any, engine_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--batch", "1,4", "--duration", "0.2", "--no-memory", "--starts", "0", "--no-where", "--json", "-"]
    assert main([str(engine_bundle()), *options, *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert problems(found) == []
    assert found["batches"][0]["engine_timings"] is not None


@pytest.mark.parametrize("engines", [False, True])
def test_the_reports_examples(engines: bool) -> None:
    assert problems(document(engines=engines, batches=(1, 8))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.pop("answer"),
        lambda one: one.update(extra=1),
        lambda one: one.update(schema_version=3),
        lambda one: one["batches"].clear(),
        lambda one: one["batches"][0]["contestants"]["shared"].update(samples_ms=[[[]]]),
        lambda one: one["batches"][0]["ratios"]["separate"].pop("low"),
        lambda one: one["batches"][0]["where"]["parts"][0].update(share=1.5),
        lambda one: one["contestants"]["shared"].update(kind="other"),
    ],
)
def test_what_is_not_a_result_is_refused(change: Callable[[Any], Any]) -> None:
    changed = deepcopy(document())
    change(changed)
    assert problems(changed)


def test_bytes_are_those_of_weights_where_the_graphs_are_there(make_bundle: Callable[..., Path]) -> None:
    from mtl_deploy.bench.contestants.pair import find_pair

    pair = find_pair(make_bundle(work=1), "fp32", ("CPU",))
    assert ideal_weights(pair) is not None
    (pair.bundle.path / "fp32.onnx").unlink()
    assert ideal_weights(pair) is None
