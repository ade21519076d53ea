"""Subcommands that may be left out: which word names one, and who reads the others."""

from __future__ import annotations

import argparse

import pytest

from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.console.subcommands import Subcommand, dispatch


def called(*given: str) -> tuple[str, dict[str, object]]:
    """Return which body ran and what it was given, for a command with a value option, flags and one subcommand."""
    options = parser("tool", "Does it.", "examples: none")
    options.add_argument("-q", "--quiet", action="store_true")
    options.add_argument("-o", "--output")
    options.add_argument("--labels")
    options.add_argument("--maybe", nargs="?")
    compare = parser("tool compare", "Compares.", "")
    compare.add_argument("first")
    compare.add_argument("second")
    compare.add_argument("-q", "--quiet", action="store_true")
    compare.add_argument("--precision")
    found: list[tuple[str, dict[str, object]]] = []

    def note(name: str, arguments: argparse.Namespace) -> int:
        found.append((name, vars(arguments)))
        return 0

    subcommands = {"compare": Subcommand(compare, lambda read: note("compare", read), "two of them")}
    code = dispatch(given, options, lambda made: _operand(made), lambda read: note("usual", read), subcommands)
    assert code == 0
    return found[0]


def _operand(made: argparse.ArgumentParser) -> None:
    made.add_argument("path")


@pytest.mark.parametrize(
    "given",
    [
        ("compare", "a", "b"),
        ("--quiet", "compare", "a", "b"),
        ("-q", "compare", "a", "b"),
        ("--qui", "compare", "a", "b"),
        ("--precision", "fp16", "compare", "a", "b"),
        ("--precision=fp16", "compare", "a", "b"),
        ("--quiet", "compare", "--precision", "fp16", "a", "b"),
        ("compare", "a", "compare"),
    ],
)
def test_the_first_word_that_is_no_option_names_the_subcommand(given: tuple[str, ...]) -> None:
    name, arguments = called(*given)
    assert name == "compare"
    assert arguments["first"] == "a"
    assert arguments["second"] == given[-1]
    assert arguments["quiet"] is any(word.startswith(("-q", "--qui")) for word in given)
    assert arguments["precision"] == ("fp16" if any("fp16" in word for word in given) else None)


@pytest.mark.parametrize(
    "given",
    [
        ("model.mtl",),
        ("model.mtl", "--labels", "compare"),
        ("--labels", "compare", "model.mtl"),
        ("--label", "compare", "model.mtl"),
        ("-o", "compare", "model.mtl"),
        ("-qo", "compare", "model.mtl"),
        ("-ocompare", "model.mtl"),
        ("--maybe", "compare", "model.mtl"),
        ("--", "compare"),
        ("-q", "--", "compare"),
    ],
)
def test_a_value_called_like_a_subcommand_is_a_value(given: tuple[str, ...]) -> None:
    name, arguments = called(*given)
    assert name == "usual"
    assert arguments["path"] == ("compare" if "--" in given else "model.mtl")


def test_an_option_that_the_subcommand_lacks_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        called("--output", "x", "compare", "a", "b")
    assert "tool compare: error: unrecognized arguments: --output" in capsys.readouterr().err


def test_help_lists_the_subcommands_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        called("--help")
    out = capsys.readouterr().out
    assert out.startswith("usage: tool [-h]")
    assert "subcommands:\n  compare   two of them; see tool compare --help\n" in out
    assert out.endswith("examples: none\n")
    for given in (("compare", "--help"), ("-q", "compare", "-h")):
        with pytest.raises(SystemExit, match="0"):
            called(*given)
        assert capsys.readouterr().out.startswith("usage: tool compare [-h]")


def test_completion_offers_the_subcommand_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    for given in (("--print-completion", "bash"), ("compare", "--print-completion=bash")):
        with pytest.raises(SystemExit, match="0"):
            called(*given)
        script = capsys.readouterr().out
        assert "_shtab_tool_subparsers=(compare)" in script.replace("'", "")
        assert " --precision" in script.split("_shtab_tool_compare_option_strings=")[1].split("\n")[0]
        assert "--labels" in script
