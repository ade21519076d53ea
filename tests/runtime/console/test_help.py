"""Help at the terminal's width, and English that says what it means."""

from __future__ import annotations

import importlib
import re

import pytest

from mtl_deploy.runtime.bundle.manifest import PRECISIONS
from mtl_deploy.runtime.console.command import parser

PAGES = [
    ("export.cli", ()),
    ("calibration.cli", ()),
    ("calibration.cli", ("compare",)),
    ("runtime.cli", ()),
    ("bench.cli", ()),
    ("bench.cli", ("compare",)),
    ("bench.cli", ("report",)),
    ("runtime.doctor.cli", ()),
]
pages = pytest.mark.parametrize(("module", "words"), PAGES, ids=lambda one: "-".join(one) if one else "")


def shown(module: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    main = importlib.import_module(f"mtl_deploy.{module}").main
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    return capsys.readouterr().out


@pages
@pytest.mark.parametrize("columns", [60, 80, 128, 300])
def test_help_fits_the_terminal(
    module: str,
    words: tuple[str, ...],
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = shown(module, words, capsys).splitlines()
    limit = min(columns, 128)
    for line in lines:
        if len(line) > limit:  # nothing but one option, word or command that cannot be cut
            assert re.fullmatch(r" *\[?(--?[\w-]+ )?\S+( \\)?", line), line
    assert max(map(len, lines)) > 0.8 * limit  # it fills the lines, too
    assert "examples:" in lines
    assert any(line.startswith("exit codes: 0 done") for line in lines)


@pages
def test_help_says_the_same_at_any_width(
    module: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for columns in (60, 128):
        monkeypatch.setenv("COLUMNS", str(columns))
        said.append(shown(module, words, capsys).replace("\\\n", "").split())
    assert said[0] == said[1]


@pages
def test_help_is_written_in_plain_english(
    module: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One output per task, never "one output a task"."""
    monkeypatch.setenv("COLUMNS", "300")
    text = " ".join(shown(module, words, capsys).split())
    things = "task|image|pixel|frame|batch|row|class|layer|graph|file|core|channel|precision|contestant|label"
    counted = "outputs?|models?|values?|files?|lines?|columns?|tables?|maps?|images?|engines?|graphs?|seconds?|threads?|process"
    assert not re.search(rf"\b(?:{counted}) an? (?:{things})\b", text)


@pytest.mark.parametrize("module", ["runtime.cli", "bench.cli"])
def test_help_names_all_precisions(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = re.search(r"  --precision NAME(.*?)  -", shown(module, (), capsys), re.DOTALL)
    assert text is not None
    assert all(re.search(rf"\b{name}\b", text[1]) for name in PRECISIONS)


@pytest.mark.parametrize(("module", "words"), [page for page in PAGES if page[0][0] in "ec"])
def test_help_says_that_labels_may_be_a_folder(
    module: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.search(r"--labels PATH\s(.*?)\n  --", shown(module, words, capsys), re.DOTALL)
    assert text is not None
    assert "a folder" in text[1]


def test_a_long_command_is_cut_as_a_shell_reads_it_and_an_option_stays_with_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    epilog = (
        "examples:\n  mtl-x model.pt --task 'a=binary:no, yes' --image-size 224x224 --force\n      explained in words"
    )
    with pytest.raises(SystemExit):
        parser("mtl-x", "Does it.", epilog).parse_args(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("examples:") + 1 :] == [
        "  mtl-x model.pt --task 'a=binary:no, yes' \\",
        "    --image-size 224x224 --force",
        "      explained in words",
    ]
