"""The page of commands, from the parsers that the commands themselves use."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
_INTRODUCTION = """\
# Commands

What each command prints with `--help`. All of them end with exit code 0 when the work is done, 1 when the work itself failed, 2 for
input that cannot be used, and 130, 143 or 129 after an interrupt, a termination or a terminal that went away; each says below what
else it returns. `--version` and `--print-completion bash` (or `zsh`, `tcsh`) are in all of them.

"""
_COMMON = {"--help", "--version", "--print-completion"}


class _Found(BaseException):
    """Carries the parser out of a command, past what turns errors into exit codes."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(entry: str, *words: str) -> argparse.ArgumentParser:
    """Return the parser of a command, with all of its arguments.

    Args:
        entry: its entry point, such as ``mtl_deploy.runtime.cli:main``.
        words: a subcommand, or nothing.
    """
    module, _, name = entry.partition(":")

    def found(self: argparse.ArgumentParser, file: object = None) -> None:  # noqa: ARG001 - argparse's signature
        raise _Found(self)

    with patch.object(argparse.ArgumentParser, "print_help", found):
        try:
            getattr(import_module(module), name)([*words, "--help"])
        except _Found as one:
            return one.parser
    raise RuntimeError(f"{entry} {words}: printed no help")


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each installed command and of its subcommands."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for name, entry in scripts.items():
        command = parser_of(entry)
        yield command
        for word in dict.fromkeys(re.findall(rf"see {re.escape(name)} ([a-z-]+) --help", command.epilog or "")):
            yield parser_of(entry, word)


def page() -> str:
    """Return the page as Markdown."""
    return _INTRODUCTION + "\n".join(map(section, parsers()))


def section(parser: argparse.ArgumentParser) -> str:
    """Return one command: what it does, its arguments by group, examples and exit codes."""
    lines = [f"## {parser.prog}", "", plain(parser.description or ""), "", "```text", usage(parser), "```", ""]
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not _COMMON & set(one.option_strings)]
        actions = [one for one in actions if one.help is not argparse.SUPPRESS]
        if not actions:
            continue
        title = "arguments" if group.title == "positional arguments" else group.title
        lines += [f"### {parser.prog}: {plain(title or '')}", ""]
        for action in actions:
            lines += [f"`{called(action)}`", "", f":   {plain(help_of(parser, action))}", ""]
    if parser.epilog:
        lines += [f"### {parser.prog}: examples and exit codes", "", "```text", parser.epilog.strip(), "```", ""]
    return "\n".join(lines)


def usage(parser: argparse.ArgumentParser) -> str:
    """Return the command's arguments in a line: ``mtl-infer [options] MODEL IMAGE [IMAGE ...]``."""
    words = [parser.prog, "[options]"]
    for action in parser._actions:
        if not action.option_strings and action.help is not argparse.SUPPRESS:
            name = called(action)
            forms = {"+": f"{name} [{name} ...]", "*": f"[{name} ...]", "?": f"[{name}]"}
            words.append(forms.get(str(action.nargs), name))
    return " ".join(words)


def called(action: argparse.Action) -> str:
    """Return how an argument is written: ``-o, --output DIR``."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        value = f" {action.metavar or choices}"
    return ", ".join(action.option_strings) + value


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return an argument's help with its defaults filled in."""
    return parser._get_formatter()._expand_help(action) if action.help else ""


def plain(text: str) -> str:
    """Return text whose characters mean themselves in Markdown; options in it become code."""
    joined = " ".join(text.split())
    escaped = re.sub(r"([\\*_\[\]<>|`&])", r"\\\1", joined).replace("\\<", "&lt;").replace("\\>", "&gt;")
    return re.sub(r"(?<![\w-])(--[a-z][\w-]*)", r"`\1`", escaped).replace("\\&", "&amp;")
