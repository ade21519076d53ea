"""What a shell offers behind an option beyond argparse's choices: words of a list with commas, and words behind ``NAME=``.

shtab writes the scripts. It offers choices, and a value that holds several of them is none; so for bash a function of our own
comes before its function, and zsh has ``_values`` and ``compset``. tcsh offers the words one at a time.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from mtl_deploy.runtime.errors import OptionError

Words = Sequence[str] | Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Offered:
    """Words that may be in an option's value.

    Attributes:
        words: them, or a function that returns them.
        sign: what stands before each but the first (``,``), or before the only one (``=``); empty: the value is one word.
    """

    words: Words
    sign: str

    def all(self) -> list[str]:
        """Return the words."""
        return list(self.words() if callable(self.words) else self.words)


def offer(action: argparse.Action, words: Words, *, sign: str = "") -> argparse.Action:
    """Have completion offer words in an option's value, without restricting it to them.

    Args:
        action: the option.
        words: them, or a function that returns them, called when a script is printed.
        sign: ``,`` for a list with commas, ``=`` for a word behind ``NAME=``.

    Returns:
        the option.
    """
    vars(action)["offered"] = Offered(words, sign)
    return action


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a completion script.

    Args:
        parser: the command's, with its subcommands as argparse knows them. It is changed, and cannot parse any more.
        shell: ``bash``, ``zsh`` or ``tcsh``.

    Raises:
        OptionError: shtab is missing.
    """
    try:
        import shtab
    except ImportError:
        raise OptionError("completion scripts need shtab: pip install 'mtl-deploy[completion]'") from None
    offered: dict[str, Offered] = {}
    for action in _actions(parser):
        found = vars(action).get("offered")
        if found is not None:
            offered |= dict.fromkeys(action.option_strings, found)
            vars(action)["complete"] = {
                "zsh": _zsh(found),
                "tcsh": "" if found.sign == "=" else f"({' '.join(found.all())})",
            }
        elif action.type is Path and not action.choices:
            vars(action)["complete"] = shtab.FILE
    made: str = shtab.complete(parser, shell=shell)
    subcommands = [name for one in _subparsers(parser) for name in one.choices]
    if shell == "bash":
        return made + _bash(parser.prog, offered, subcommands)
    if shell == "zsh" and subcommands:  # the first operand is a subcommand's name, or a file
        return re.sub(r"^(  _describe '.* commands' _commands)$", r"\1\n  _files", made, flags=re.MULTILINE)
    return made


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse._SubParsersAction[Any]]:
    yield from (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield a parser's options and operands, and its subcommands'."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def _zsh(found: Offered) -> str:
    words = " ".join(found.all())
    if found.sign == ",":
        return f"_values -s , word {words}"
    return f"{{compset -P \\*=; compadd - {words}}}" if found.sign else f"({words})"


_BASH = Template(r"""
# words within a value: lists with commas, and words behind NAME=
_mtl_${name}() {
  local line="$${COMP_LINE:0:COMP_POINT}" sign="" words="" before="" quoted=""
  local word="$${line##*[[:space:]]}"
  local option="$${line%"$$word"}"
  option="$${option%"$${option##*[![:space:]]}"}"
  option="$${option##*[[:space:]]}"
  if [[ "$$word" == --*=* ]]; then
    option="$${word%%=*}"
    word="$${word#*=}"
  fi
  case "$$word" in [\'\"]*) quoted=1; word="$${word:1}" ;; esac
  case "$$option" in
${cases}
    *)
      _shtab_${name} "$$@"
      if [[ -n "$${COMPREPLY[0]-}" && " ${subcommands} " == *" $${COMPREPLY[0]} "* ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$$line"); done < <(compgen -f -- "$${COMP_WORDS[COMP_CWORD]}")
      fi
      return ;;
  esac
  COMPREPLY=()
  if [[ -n "$$sign" ]]; then
    [[ "$$word" == *"$$sign"* ]] && before="$${word%"$$sign"*}$$sign"
    [[ "$$sign" == "=" && -z "$$before" ]] && return
    compopt -o nospace 2>/dev/null
  fi
  word="$${word#"$$before"}"
  # readline completes only what follows the last of its word breaks, unless a quote is open
  [[ "$$sign" == "=" && -z "$$quoted" && "$$COMP_WORDBREAKS" == *=* ]] && before=""
  while IFS= read -r line; do COMPREPLY+=("$$before$$line"); done < <(compgen -W "$$words" -- "$$word")
}

complete -o bashdefault -o default -F _mtl_${name} ${prog}
""")


def _bash(prog: str, offered: dict[str, Offered], subcommands: Sequence[str]) -> str:
    cases = [
        f"    {option}) sign='{found.sign}'; words='{' '.join(found.all())}' ;;" for option, found in offered.items()
    ]
    name = re.sub(r"\W", "_", prog)
    return _BASH.substitute(name=name, prog=prog, cases="\n".join(cases), subcommands=" ".join(subcommands))
