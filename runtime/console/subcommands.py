"""Subcommands that may be left out: ``mtl-calibrate BUNDLE`` does the usual work, ``mtl-calibrate compare A B`` something else.

:mod:`argparse` has subcommands only where each call names one. Here the first word that is neither an option nor the value of an
option decides: if it is a subcommand's name, that subcommand's parser reads all other words, options before the name included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Subcommand:
    """One subcommand.

    Attributes:
        parser: for all words but its name; its ``prog`` is the whole name, such as ``mtl-bench compare``.
        run: does the work; takes the parsed arguments and returns the exit code.
        help: one line for the command's own ``--help``.
    """

    parser: argparse.ArgumentParser
    run: Callable[[argparse.Namespace], int]
    help: str


def dispatch(
    given: Sequence[str],
    options: argparse.ArgumentParser,
    operands: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    subcommands: Mapping[str, Subcommand],
) -> int:
    """Parse a command line and run the command, or the subcommand that it names.

    Args:
        given: the words after the command's name.
        options: the command's parser, so far with options alone; it is extended.
        operands: adds the positional arguments of the command without a subcommand.
        run: does the usual work; takes the parsed arguments and returns the exit code.
        subcommands: by name.

    Returns:
        the exit code.
    """
    asked = next((i for i, word in enumerate(given) if word.startswith("--print-completion")), None)
    if asked is not None:
        _add_for_completion(options, subcommands)
        options.parse_args(given[asked:])  # ends here
    position = _first_operand(given, [options, *(one.parser for one in subcommands.values())])
    chosen = None if position is None else subcommands.get(given[position])
    if chosen is not None and position is not None:
        return chosen.run(chosen.parser.parse_args([*given[:position], *given[position + 1 :]]))
    listed = "\n".join(f"  {name:<10}{one.help}; see {one.parser.prog} --help" for name, one in subcommands.items())
    options.epilog = f"subcommands:\n{listed}\n\n{options.epilog or ''}"
    operands(options)
    return run(options.parse_args(list(given)))


def _add_for_completion(options: argparse.ArgumentParser, subcommands: Mapping[str, Subcommand]) -> None:
    """Add the subcommands in the place of the operands, where a completion script offers them."""
    added = options.add_subparsers()
    for name, one in subcommands.items():
        added.add_parser(name, help=one.help, parents=[one.parser], add_help=False)


def _first_operand(given: Sequence[str], parsers: Sequence[argparse.ArgumentParser]) -> int | None:
    """Return the position of the first word that is neither an option nor an option's value; None behind ``--`` or without one."""
    known: dict[str, argparse.Action] = {}
    for one in reversed(parsers):
        known |= one._option_string_actions  # where two parsers differ, the first decides
    position = 0
    while position < len(given) and given[position] != "--":
        word = given[position]
        if not word.startswith("-") or word == "-":
            return position
        position += 1 + _values_after(word, given[position + 1 :], known)
    return None


def _values_after(word: str, following: Sequence[str], known: Mapping[str, argparse.Action]) -> int:
    """Return how many of the words that follow an option are its values."""
    action = _open_option(word, known)
    if action is None:
        return 0
    if isinstance(action.nargs, int):
        return action.nargs
    values = next((i for i, text in enumerate(following) if text.startswith("-") and text != "-"), len(following))
    return min(values, 1) if action.nargs in (None, "?") else values


def _open_option(word: str, known: Mapping[str, argparse.Action]) -> argparse.Action | None:
    """Return the option in a word whose value is not in the word itself; None where it needs no value or has one."""
    if word.startswith("--"):
        found = [known[word]] if word in known else [one for name, one in known.items() if name.startswith(word)]
        return found[0] if found and all(one.nargs != 0 for one in found) and "=" not in word else None
    for position, letter in enumerate(word[1:], 2):  # -qo DIR: flags in one word, the last of which may take a value
        action = known.get(f"-{letter}")
        if action is None or action.nargs != 0:
            return action if position == len(word) else None
    return None
