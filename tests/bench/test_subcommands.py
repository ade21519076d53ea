"""The subcommands of mtl-bench beside a bundle in their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl_deploy.bench.cli import main
from tests.bench.documents import document

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def result(tmp_path: Path) -> str:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(document(calls=4)), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("quiet", [[], ["--quiet"], ["-q"]])
def test_quiet_may_stand_before_a_subcommand_and_behind_it(quiet: list[str], result: str, capsys: Capture) -> None:
    assert main([*quiet, "compare", result, result]) == 0
    first = capsys.readouterr().out
    assert "no difference" in first
    assert main(["compare", result, result, *quiet]) == 0
    assert capsys.readouterr().out == first
    page = Path(result).with_suffix(".html")
    assert main([*quiet, "report", result, "--force"]) == 0
    assert capsys.readouterr().out == ("" if quiet else f"{page}\n")
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["compare", "report"])
def test_a_subcommand_has_help_of_its_own(name: str, capsys: Capture) -> None:
    for before in ([], ["--quiet"]):
        with pytest.raises(SystemExit, match="0"):
            main([*before, name, "--help"])
        out = capsys.readouterr().out
        assert out.startswith(f"usage: mtl-bench {name} ")
        assert "exit codes:" in out


def test_the_help_names_the_subcommands(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert "mtl-bench compare before.json after.json" in out
    assert "mtl-bench report result.json" in out


def test_subcommands_are_completed(capsys: Capture) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert "_shtab_mtl_bench_subparsers=(compare report)" in script
    assert "--fail-above" in script.split("_shtab_mtl_bench_compare_option_strings=")[1].split("\n")[0]
    assert "--output" in script.split("_shtab_mtl_bench_report_option_strings=")[1].split("\n")[0]
    assert "--energy" in script.split("_shtab_mtl_bench_option_strings=")[1].split("\n")[0]


def test_a_bundle_may_be_called_as_a_subcommand_is(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare").mkdir()
    assert main(["./compare", "--quiet"]) == 2
    assert "error: compare: not a bundle" in capsys.readouterr().err


def test_options_of_a_run_are_none_of_a_subcommand(result: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--batch", "8", "compare", result, result])
    assert "mtl-bench compare: error: unrecognized arguments: --batch" in capsys.readouterr().err
    gate = ["--fail-above", "5"]
    assert main(["compare", *gate, result, result]) == main([*gate, "compare", result, result]) == 0
