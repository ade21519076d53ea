"""Two results beside one another: what is real, what is noise, and when CI must fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.bench.results.compare import compare
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


def test_alike_results_rarely_differ() -> None:
    real = [
        compare(result(2 * seed, ms={"shared": 10.0}), result(2 * seed + 1, ms={"shared": 10.0})).changes[0].real
        for seed in range(60)
    ]
    assert sum(real) <= 12  # 5 % of 60 are 3; few processes make a bootstrap interval somewhat too narrow


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
    assert bench(["compare", first, second, "--fail-above", "5"]) == 1
    assert "error: shared at batch 1" in capsys.readouterr().err
    assert bench(["compare", second, first, "--fail-above", "0"]) == 0  # faster
    assert bench(["compare", first, second, "--fail-above", "20", "--contestants", "shared,separate"]) == 1
    assert bench(["compare", first, first, "--fail-above", "0"]) == 0


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
