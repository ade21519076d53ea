"""Results overwrite no file unasked, and never an input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_deploy.bench.cli import main
from mtl_deploy.bench.results.output_files import check_target, check_targets, write_whole
from mtl_deploy.runtime.errors import OptionError
from tests.bench.documents import document

MakeBundle = Callable[..., Path]
QUICK = ["--quick", "--duration", "0.1", "--quiet", "--isolation", "none", "--provider", "CPU", "--no-memory"]


@pytest.mark.parametrize("option", ["--json", "--csv", "--report"])
def test_a_file_is_replaced_by_force_alone(
    option: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "precious.txt"
    file.write_text("years of work")
    assert main([str(make_bundle()), *QUICK, option, str(file)]) == 2
    assert f"{option} {file}: exists; pass --force" in capsys.readouterr().err
    assert file.read_text() == "years of work"


def test_force_replaces_all_three(make_bundle: MakeBundle, tmp_path: Path) -> None:
    files = {option: tmp_path / f"result{option}" for option in ("--json", "--csv", "--report")}
    for file in files.values():
        file.write_text("old")
    options = [part for option, file in files.items() for part in (option, str(file))]
    assert main([str(make_bundle()), *QUICK, *options, "-f"]) == 0
    assert all(file.read_text() != "old" for file in files.values())
    assert json.loads(files["--json"].read_text())["schema"] == "mtl-bench"


@pytest.mark.parametrize("failing", [["--json"], ["--csv"], ["--report"], ["--json", "--report"]])
def test_an_output_that_cannot_be_written_loses_no_other(
    failing: list[str], make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {option: tmp_path / f"result{option}" for option in ("--json", "--csv", "--report") if option not in failing}
    files: dict[str, object] = dict.fromkeys(failing, "/dev/full") | good
    options = [part for option, file in files.items() for part in (option, str(file))]
    assert main([str(make_bundle()), *QUICK, *options]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "error: " + "; ".join(f"{option} /dev/full: No space left on device" for option in failing)
    ]
    assert "latency p50, ms" in said.out
    assert all(file.stat().st_size > 100 for file in good.values())


def test_an_input_is_not_written_over_even_by_force(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    manifest = (bundle / "manifest.json").read_bytes()
    assert main([str(bundle), *QUICK, "--json", str(bundle / "manifest.json"), "--force"]) == 2
    assert "that is read, so it is not written over" in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == manifest


def test_compare_and_report_keep_files_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, out = (tmp_path / f"{name}.json" for name in ("first", "second", "out"))
    text = json.dumps(document())
    for file in (first, second):
        file.write_text(text)
    out.write_text("mine")
    assert main(["compare", str(first), str(second), "--json", str(out)]) == 2
    assert main(["report", str(first), "-o", str(out)]) == 2
    assert out.read_text() == "mine"
    assert main(["compare", str(first), str(second), "--json", str(first), "-f"]) == 2
    assert main(["report", str(first), "-o", str(first), "-f"]) == 2
    assert first.read_text() == text
    assert main(["compare", str(first), str(second), "--json", str(out), "-f"]) == 0
    assert json.loads(out.read_text())["changes"]
    assert main(["report", str(first), "-o", str(out), "-f"]) == 0
    assert "<html" in out.read_text()
    capsys.readouterr()


def test_two_options_that_name_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("result")
    with pytest.raises(OptionError, match="--json names the same file"):
        check_targets({"--json": str(tmp_path / "result"), "--csv": str(tmp_path / "link")}, force=False)
    check_targets({"--json": "/dev/null", "--csv": "/dev/null"}, force=False)


def test_a_file_that_appears_while_it_is_measured_stays_and_the_result_goes_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    check_target("--json", str(file), force=False)
    file.write_text("mine")
    (tmp_path / "result-1.json").write_text("mine, too")
    write_whole("--json", str(file), "figures", force=False)
    assert f"written to {tmp_path / 'result-2.json'}" in capsys.readouterr().err
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"result.json": "mine", "result-1.json": "mine, too", "result-2.json": "figures"}


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "current.json").symlink_to("run3.json")
    write_whole("--json", str(tmp_path / "current.json"), "figures", force=False)
    assert (tmp_path / "current.json").is_symlink()
    assert (tmp_path / "run3.json").read_text() == "figures"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole("--json", str(tmp_path / "pipe"), "figures", force=False)
    assert os.read(reader, 100) == b"figures"
    os.close(reader)


def test_nothing_is_left_of_a_text_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    shutil.rmtree(folder)
    with pytest.raises(OptionError, match="No such file"):
        write_whole("--json", str(folder / "result.json"), "figures", force=False)
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OptionError, match="irectory"):
        write_whole("--json", str(tmp_path / "result.json"), "figures", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_bytes_of_names_that_are_not_utf_8_are_written_as_text(tmp_path: Path) -> None:
    write_whole("--csv", str(tmp_path / "result.csv"), "caf\udce9,\ud800", force=False)
    assert (tmp_path / "result.csv").read_text(encoding="utf-8") == r"caf\xe9,\ud800"
