"""``mtl-bench compare``: whether two results differ; with ``--fail-above`` a gate in CI."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mtl_deploy.bench.results.output_files import check_targets, write_whole
from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.console.subcommands import Subcommand
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.text import as_unicode

_DESCRIPTION = """\
Compare two results of mtl-bench, contestant by contestant: the second's time over the first's, with its 95 % interval, and the
smallest change that the two could have detected. A ratio whose interval contains 1 is no difference. With --fail-above it is a gate
with three answers: slower by more than that, not slower by more than that, or not decided by these two runs."""

_EPILOG = """\
examples:
  mtl-bench compare before.json after.json
  mtl-bench compare main.json branch.json --fail-above 5
      for CI: exit code 1 if the whole interval shows the shared pass to be slower by more than 5 %; 3 if the interval contains
      5 %, and says how long both must be measured to decide it
  mtl-bench compare main.json branch.json --fail-above 0 --inconclusive pass
      exit code 1 if the shared pass is certainly slower, however little
  mtl-bench compare orin.json xavier.json --contestants shared,separate

exit codes: 0 done; 1 slower than --fail-above allows; 2 files that cannot be compared, such as results of different networks;
3 not decided."""


_PREFIX = {"fail": "error", "inconclusive": "inconclusive"}
_INCONCLUSIVE = {"report": 3, "pass": 0, "fail": 1}


def subcommand() -> Subcommand:
    """Return what ``mtl-bench compare`` reads and does."""
    made = parser("mtl-bench compare", _DESCRIPTION, _EPILOG)
    _add_arguments(made)
    return Subcommand(made, _compare, "say whether two results differ")


def _add_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "first", type=Path, metavar="FIRST.json", help="what mtl-bench --json wrote; the one to compare with"
    )
    made.add_argument("second", type=Path, metavar="SECOND.json", help="another")
    made.add_argument(
        "--fail-above",
        type=float,
        metavar="PERCENT",
        help="exit with 1 if the second is certainly slower by more than this",
    )
    made.add_argument(
        "--inconclusive",
        choices=tuple(_INCONCLUSIVE),
        default="report",
        help="what --fail-above makes of a change that is not decided: report exits with 3 (default), pass with 0, fail with 1",
    )
    made.add_argument(
        "--allow-different", action="store_true", help="compare results of different networks, with a warning"
    )
    made.add_argument(
        "--contestants", default="shared", metavar="NAME,...", help="that --fail-above looks at (default: shared)"
    )
    made.add_argument(
        "--json", metavar="FILE", help="write the comparison; - for standard output, instead of the table"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace the file at --json")
    made.add_argument("-q", "--quiet", action="store_true", help="accepted as everywhere; there is no progress line")


def _compare(arguments: argparse.Namespace) -> int:
    from mtl_deploy.bench.comparison.compare import compare
    from mtl_deploy.bench.results.result_file import read_result

    percent = arguments.fail_above
    if percent is not None and not 0 <= percent < 1000:
        raise OptionError(f"--fail-above {percent:g}: use percent, from 0 to less than 1000")
    if arguments.json not in (None, "-"):
        inputs = (arguments.first, arguments.second)
        check_targets({"--json": arguments.json}, force=arguments.force, inputs=inputs)
    found = compare(
        read_result(arguments.first), read_result(arguments.second), allow_different=arguments.allow_different
    )
    watched = [name.strip() for name in arguments.contestants.split(",")]
    measured = {change.contestant for change in found.changes}
    if percent is not None and (absent := [name for name in watched if name not in measured]):
        raise OptionError(f"--contestants {absent[0]}: the results have in common {', '.join(sorted(measured))}")
    verdicts = [] if percent is None else found.judged(percent, watched)
    document = found.to_dict() | {"verdicts": [verdict.to_dict() for verdict in verdicts]}
    text = as_unicode(json.dumps(document, ensure_ascii=False), json=True) + "\n"
    if arguments.json not in (None, "-"):
        write_whole("--json", arguments.json, text, force=arguments.force)
    if arguments.json == "-":
        sys.stdout.write(text)
    else:
        passed = [verdict.sentence() for verdict in verdicts if verdict.outcome == "pass"]
        sys.stdout.write("\n".join([found.text(), *(["", *passed] if passed else [])]) + "\n")
    for verdict in verdicts:
        if verdict.outcome != "pass":
            sys.stderr.write(f"{_PREFIX[verdict.outcome]}: {verdict.sentence()}\n")
    outcomes = {verdict.outcome for verdict in verdicts}
    if "fail" in outcomes:
        return 1
    return _INCONCLUSIVE[arguments.inconclusive] if "inconclusive" in outcomes else 0
