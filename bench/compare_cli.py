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
Compare two results of mtl-bench, contestant by contestant: the second's time over the first's, with its 95 % interval. A ratio
whose interval contains 1 is no difference."""

_EPILOG = """\
examples:
  mtl-bench compare before.json after.json
  mtl-bench compare main.json branch.json --fail-above 5
      for CI: exit code 1 where the shared pass has become slower by more than 5 %, and the difference is real
  mtl-bench compare orin.json xavier.json --contestants shared,separate

exit codes: 0 done; 1 slower than --fail-above allows; 2 files that cannot be compared."""


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
        help="exit with 1 where the second is slower by more, and really so",
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
    from mtl_deploy.bench.results.compare import compare
    from mtl_deploy.bench.results.result_file import read_result

    percent = arguments.fail_above
    if percent is not None and not 0 <= percent < 1000:
        raise OptionError(f"--fail-above {percent:g}: use percent, from 0 to less than 1000")
    if arguments.json not in (None, "-"):
        inputs = (arguments.first, arguments.second)
        check_targets({"--json": arguments.json}, force=arguments.force, inputs=inputs)
    found = compare(read_result(arguments.first), read_result(arguments.second))
    watched = [name.strip() for name in arguments.contestants.split(",")]
    measured = {change.contestant for change in found.changes}
    if percent is not None and (absent := [name for name in watched if name not in measured]):
        raise OptionError(f"--contestants {absent[0]}: the results have in common {', '.join(sorted(measured))}")
    if arguments.json == "-":
        print(json.dumps(found.to_dict(), ensure_ascii=False))  # noqa: T201
    else:
        print(found.text())  # noqa: T201
        if arguments.json is not None:
            text = as_unicode(json.dumps(found.to_dict(), ensure_ascii=False), json=True) + "\n"
            write_whole("--json", arguments.json, text, force=arguments.force)
    failed = [
        change
        for change in found.changes
        if percent is not None and change.contestant in watched and change.slower_than(percent)
    ]
    for change in failed:
        sys.stderr.write(
            f"error: {change.contestant} at batch {change.batch} takes {change.verdict} (95 % interval of the ratio "
            f"{change.ratio.low:.3f} to {change.ratio.high:.3f}); --fail-above allows {percent:g} %\n"
        )
    return 1 if failed else 0
