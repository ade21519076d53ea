"""Two results beside one another: what is real, what is noise, and when CI must fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.bench.comparison.compare import compare
from mtl_deploy.bench.results.result_file import read_result
from mtl_deploy.runtime.errors import OptionError
from tests.bench.runs import result, write
from tests.conftest import MakeBundle


def test_a_real_difference_is_called_one_and_noise_is_not() -> None:
    first = result(1, ms={"shared": 10.0, "separate": 30.0})
    second = result(2, ms={"shared": 11.0, "separate": 30.0})
    found = {change.contestant: change for change in compare(first, second).changes}
    assert found["shared"].real
    assert found["shared"].ratio.contains(1.1)
    assert found["shared"].verdict.endswith("% more time")
    assert not found["separate"].real
    assert found["separate"].verdict == "no difference"


def test_alike_results_differ_in_one_of_twenty_cases() -> None:
    real = [
        compare(result(2 * seed, ms={"shared": 10.0}), result(2 * seed + 1, ms={"shared": 10.0})).changes[0].real
        for seed in range(300)
    ]
    assert 0.02 <= np.mean(real) <= 0.08


def test_a_change_that_is_called_detectable_is_detected_in_four_of_five_cases() -> None:
    smallest = [
        compare(result(2 * seed, ms={"shared": 10.0}), result(2 * seed + 1, ms={"shared": 10.0})).changes[0].detectable
        for seed in range(50)
    ]
    assert None not in smallest
    change = 1 + float(np.sqrt(np.mean(np.array(smallest, np.float64) ** 2))) / 100  # each pair knows its noise roughly
    assert 1.01 < change < 1.03  # starts differ by 0.5 %
    real = [
        compare(result(2 * seed, ms={"shared": 10.0}), result(2 * seed + 1, ms={"shared": 10.0 * change}))
        .changes[0]
        .real
        for seed in range(1000, 1300)
    ]
    assert 0.7 <= np.mean(real) <= 0.9


def test_results_of_several_batches_are_compared_at_each_that_both_have() -> None:
    first = result(1, ms={"shared": 10.0}, batches=(1, 4, 8))
    second = result(2, ms={"shared": 5.0}, batches=(4, 8, 16))
    found = compare(first, second)
    assert [change.batch for change in found.changes] == [4, 8]
    assert all(change.ratio.contains(0.5) for change in found.changes)
    assert "batch" in found.text().splitlines()[0]


def test_what_was_not_the_same_is_listed() -> None:
    found = compare(result(1, ms={"shared": 1.0}, threads=1), result(2, ms={"shared": 1.0, "separate": 2.0}, threads=2))
    assert found.conditions == {"threads": (1, 2)}
    assert any("only one of the two has separate" in warning for warning in found.warnings)
    assert "threads" in found.text()


def test_single_processes_are_warned_of() -> None:
    one = result(1, ms={"shared": 1.0}, processes=1)
    assert any("1 process:" in warning for warning in compare(one, one).warnings)


def test_the_command_fails_only_past_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0, "separate": 30.0}))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 11.0, "separate": 60.0}))
    assert bench(["compare", first, second]) == 0
    assert "% more time" in capsys.readouterr().out
    assert bench(["compare", first, second, "--fail-above", "20"]) == 0
    assert "shared at batch 1 is not slower by more than 20 %" in capsys.readouterr().out
    assert bench(["compare", first, second, "--fail-above", "5"]) == 1
    assert "error: shared at batch 1" in capsys.readouterr().err
    assert bench(["compare", second, first, "--fail-above", "0"]) == 0  # faster
    assert bench(["compare", first, second, "--fail-above", "20", "--contestants", "shared,separate"]) == 1
    assert bench(["compare", first, first, "--fail-above", "5"]) == 0


def test_what_is_not_decided_is_an_answer_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0}))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 10.2}))
    gate = ["compare", first, second, "--fail-above", "1.5"]
    assert bench(gate) == 3
    said = capsys.readouterr()
    assert said.err.startswith("inconclusive: shared at batch 1 ")
    assert "not decided; about " in said.err
    assert "could detect, %" in said.out
    assert bench([*gate, "--inconclusive", "report"]) == 3
    assert bench([*gate, "--inconclusive", "pass"]) == 0
    assert bench([*gate, "--inconclusive", "fail"]) == 1
    assert bench([*gate, "--json", str(tmp_path / "c.json")]) == 3
    (verdict,) = json.loads((tmp_path / "c.json").read_text())["verdicts"]
    assert verdict["outcome"] == "inconclusive"
    seconds = 10.0 * verdict["starts_needed"] / 4
    assert verdict["seconds_needed"] == [seconds, seconds]
    capsys.readouterr()
    assert bench(["compare", first, first, "--fail-above", "0"]) == 3  # at 0, nothing short of faster passes
    assert "so near to the limit that even 1000 starts" in capsys.readouterr().err


def test_a_clear_failure_outweighs_what_is_not_decided(tmp_path: Path) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0, "separate": 30.0}))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 10.2, "separate": 60.0}))
    gate = ["compare", first, second, "--fail-above", "1.5", "--contestants", "shared,separate"]
    assert bench([*gate, "--inconclusive", "pass"]) == 1


def test_a_change_of_just_the_limit_rarely_fails_and_rarely_passes() -> None:
    """The interval is tested against the limit, not the estimate: that would fail half of them."""
    outcomes = [
        compare(result(2 * seed, ms={"shared": 10.0}), result(2 * seed + 1, ms={"shared": 10.5}))
        .judged(5, ["shared"])[0]
        .outcome
        for seed in range(300)
    ]
    assert 0.005 <= outcomes.count("fail") / 300 <= 0.05
    assert 0.005 <= outcomes.count("pass") / 300 <= 0.05


def test_one_start_is_told_to_become_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0}, processes=1))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 10.3}, processes=1))
    assert bench(["compare", first, second, "--fail-above", "2.5"]) == 3
    assert "tells nothing of what a restart changes: measure both with --processes 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tasks", ["depth"], "tasks: age and depth"),
        ("kinds", ["classification"], "kinds of the tasks: regression and classification"),
        ("sizes", [2], "values per task: 1 and 2"),
        ("input", [8, 16], "height and width of the images: 8x8 and 8x16"),
        ("channels", 1, "channels of the images: 3 and 1"),
        ("checkpoint_sha256", 64 * "b", "checkpoint, by its SHA-256: aaaaaaaaaaaa and bbbbbbbbbbbb"),
    ],
)
def test_results_of_different_networks_are_refused(
    field: str, value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = result(1, ms={"shared": 10.0}), result(2, ms={"shared": 10.0})
    other["bundle"][field] = value
    first, second = write(tmp_path, "a.json", one), write(tmp_path, "b.json", other)
    assert bench(["compare", first, second]) == 2
    assert f"of different networks ({message})" in capsys.readouterr().err
    assert bench(["compare", first, second, "--allow-different"]) == 0
    assert f"warning: the networks differ in {message}" in capsys.readouterr().out
    for unknown in (None, "absent"):  # an earlier release did not write it, or the bundle does not say
        other["bundle"] = {key: one for key, one in other["bundle"].items() if key != field}
        if unknown is None:
            other["bundle"][field] = None
        assert compare(one, other).changes


def test_the_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0}))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 20.0}))
    assert bench(["compare", first, second, "--json", "-"]) == 0
    change = json.loads(capsys.readouterr().out)["changes"][0]
    assert change["difference"] is True
    assert change["ratio"]["low"] <= change["ratio"]["value"] <= change["ratio"]["high"]
    assert bench(["compare", first, second, "--json", str(tmp_path / "c.json")]) == 0
    assert json.loads((tmp_path / "c.json").read_text())["changes"] == [change]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a list or a single value, not a result of mtl-bench"),
        ('{"predictions": []}', "predictions of mtl-infer, not a result of mtl-bench"),
        ('{"schema": "mtl-bench compare", "schema_version": 1}', "a comparison of two results, not a result"),
        ('{"schema_version": 9, "text": "no more than that", "schema": "other"}', "another document, not a result"),
        ('{"schema_version": 1}', "schema version 1"),
        ('{"schema": "mtl-bench", "schema_version": 2}', "malformed result: field 'batches' is missing"),
        (
            '{"schema": "mtl-bench", "schema_version": 2, "contestants": {}, "batches": []}',
            "malformed result: batches: a list of 0; expected 1 or more",
        ),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(OptionError, match=message):
        read_result(file)


def test_a_manifest_is_called_one(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(make_bundle() / "manifest.json")
    for arguments in (["compare", manifest, manifest], ["report", manifest]):
        assert bench(arguments) == 2
        assert capsys.readouterr().err.startswith(f"error: {manifest}: a bundle's manifest, not a result of mtl-bench;")


def test_a_round_without_calls_is_refused(tmp_path: Path) -> None:
    document = result(1, ms={"shared": 1.0})
    document["batches"][0]["contestants"]["shared"]["samples_ms"][0][0] = []
    with pytest.raises(
        OptionError, match=r"batches\[0\]\.contestants\.shared\.samples_ms\[0\]\[0\]: a list of 0; expected 1 or more"
    ):
        read_result(Path(write(tmp_path, "bad.json", document)))


def test_results_with_nothing_in_common_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 1.0}))
    second = write(tmp_path, "b.json", result(1, ms={"shared": 1.0}, batches=(2,)))
    assert bench(["compare", first, second]) == 2
    assert "in common" in capsys.readouterr().err
    assert bench(["compare", first, first, "--fail-above", "5", "--contestants", "pytorch"]) == 2
    assert bench(["compare", first, first, "--fail-above", "-1"]) == 2
