"""``mtl-bench compare``: whether two results differ, for two versions, settings or devices, or as a gate in CI."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.statistics.derived import ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, location
from mtl_deploy.runtime.console.command import parser, run_command, table
from mtl_deploy.runtime.errors import OptionError

from .output_files import check_targets, write_whole
from .result_file import read_result

COMPARE_VERSION = 1
_FEW_PROCESSES = 3

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

_CONDITIONS = {
    "precision": ("precision",),
    "backend": ("backend",),
    "library": ("details",),
    "threads": ("settings", "threads"),
    "spinning": ("settings", "spinning"),
    "CUDA graphs": ("settings", "cuda_graphs"),
    "processor": ("environment", "processor"),
    "usable cores": ("environment", "usable_cores"),
    "GPU": ("environment", "gpu", "name"),
    "governor": ("environment", "governor"),
    "Python": ("environment", "python"),
    "mtl-deploy": ("environment", "mtl_deploy"),
}
"""What may explain a difference, by name: where it stands in a result."""


@dataclass(frozen=True)
class Change:
    """One contestant at one batch size in two results.

    Attributes:
        batch: images a call.
        contestant: its name.
        first_ms: mean over processes and rounds of the round's median, in the first result.
        second_ms: in the second.
        ratio: second over first.
    """

    batch: int
    contestant: str
    first_ms: float
    second_ms: float
    ratio: Interval

    @property
    def real(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.ratio.contains(1)

    @property
    def verdict(self) -> str:
        """For people: ``no difference``, ``3.1 % more time`` or ``12.0 % less time``."""
        if not self.real:
            return "no difference"
        change = 100 * (self.ratio.value - 1)
        return f"{abs(change):.1f} % {'more' if change > 0 else 'less'} time"

    def slower_than(self, percent: float) -> bool:
        """Return whether the second result is slower by more than some percent, and the difference is real."""
        return self.real and self.ratio.value > 1 + percent / 100


@dataclass(frozen=True)
class Comparison:
    """What two results say of one another.

    Attributes:
        changes: of every contestant and batch that both have.
        conditions: what was not the same, by name: its value in the first and in the second.
        warnings: what speaks against the comparison.
    """

    changes: tuple[Change, ...]
    conditions: Mapping[str, tuple[Any, Any]]
    warnings: tuple[str, ...]

    def text(self) -> str:
        """Return the table, what differed otherwise, and the warnings."""
        several = len({change.batch for change in self.changes}) > 1
        rows = [
            [
                *([str(change.batch)] if several else []),
                change.contestant,
                f"{change.first_ms:.3f}",
                f"{change.second_ms:.3f}",
                f"{change.ratio.value:.3f}",
                f"{change.ratio.low:.3f} to {change.ratio.high:.3f}",
                change.verdict,
            ]
            for change in self.changes
        ]
        head = [
            *(["batch"] if several else []),
            "contestant",
            "first, ms",
            "second, ms",
            "ratio",
            "95 % interval",
            "second takes",
        ]
        lines = [table(head, rows)]
        if self.conditions:
            differing = table(
                ["not the same", "first", "second"],
                [[name, _shown(first), _shown(second)] for name, (first, second) in self.conditions.items()],
            )
            lines += ["", differing]
        lines += ["", *(f"warning: {warning}" for warning in self.warnings)] if self.warnings else []
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": "mtl-bench compare",
            "schema_version": COMPARE_VERSION,
            "changes": [
                asdict(change) | {"confidence": 0.95, "difference": change.real, "verdict": change.verdict}
                for change in self.changes
            ],
            "conditions": {
                name: {"first": first, "second": second} for name, (first, second) in self.conditions.items()
            },
            "warnings": list(self.warnings),
        }


def compare(first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0) -> Comparison:
    """Compare two results.

    Processes, rounds and calls of each are resampled apart from the other's, as nothing ties the two runs together.

    Args:
        first: a result; see :func:`~mtl_deploy.bench.results.result_file.read_result`.
        second: another.
        seed: of the bootstrap.

    Raises:
        OptionError: they have no contestant at one batch size in common.
    """
    theirs = {batch["batch"]: batch["contestants"] for batch in second["batches"]}
    changes = []
    for batch in first["batches"]:
        others = theirs.get(batch["batch"], {})
        for name, contestant in batch["contestants"].items():
            if name in others:
                before, after = (_nested(one["samples_ms"]) for one in (contestant, others[name]))
                changes.append(
                    Change(
                        batch["batch"],
                        name,
                        location(before),
                        location(after),
                        ratio(after, before, seed=seed, paired=False),
                    )
                )
    if not changes:
        raise OptionError(
            "the two results have no contestant at a batch size in common; measure both with the same options"
        )
    found = {name: tuple(_at(document, path) for document in (first, second)) for name, path in _CONDITIONS.items()}
    conditions = {name: (one, other) for name, (one, other) in found.items() if one != other}
    return Comparison(tuple(changes), conditions, tuple(_warnings(first, second, changes)))


def _warnings(first: Mapping[str, Any], second: Mapping[str, Any], changes: Sequence[Change]) -> list[str]:
    warnings = []
    processes = min(
        len(one["samples_ms"]) for d in (first, second) for b in d["batches"] for one in b["contestants"].values()
    )
    if processes < _FEW_PROCESSES:
        warnings.append(
            f"a result comes from {processes} process{'es' if processes > 1 else ''}: what differs from one start to the next is "
            f"not in the intervals; measure both with --processes {_FEW_PROCESSES} or more"
        )
    images = [_at(document, ("bundle", "input")) for document in (first, second)]
    if images[0] != images[1]:
        warnings.append("the networks' images differ in size: {} and {}".format(*map(_shown, images)))
    names = [{name for batch in document["batches"] for name in batch["contestants"]} for document in (first, second)]
    common = {change.contestant for change in changes}
    if missing := sorted((names[0] | names[1]) - common):
        warnings.append(f"only one of the two has {', '.join(missing)}")
    for word, document in (("first", first), ("second", second)):
        noted = [
            *document.get("warnings", ()),
            *(w for batch in document["batches"] for w in batch.get("warnings", ())),
        ]
        warnings += [f"the {word} result: {warning}" for warning in dict.fromkeys(noted)]
    return warnings


def _nested(samples: Sequence[Sequence[Sequence[float]]]) -> Nested:
    return [[np.asarray(calls, np.float64) for calls in rounds] for rounds in samples]


def _at(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value))
    return "n/a" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench compare`` and return its exit code."""
    return run_command(lambda: _compare(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-bench compare", _DESCRIPTION, _EPILOG)
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
    made.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return made


def _compare(arguments: argparse.Namespace) -> int:
    percent = arguments.fail_above
    if percent is not None and not 0 <= percent < 1000:
        raise OptionError(f"--fail-above {percent:g}: use percent, from 0 to less than 1000")
    if arguments.seed < 0:
        raise OptionError(f"--seed {arguments.seed}: use 0 or more")
    if arguments.json not in (None, "-"):
        inputs = (arguments.first, arguments.second)
        check_targets({"--json": arguments.json}, force=arguments.force, inputs=inputs)
    found = compare(read_result(arguments.first), read_result(arguments.second), seed=arguments.seed)
    watched = [name.strip() for name in arguments.contestants.split(",")]
    measured = {change.contestant for change in found.changes}
    if percent is not None and (absent := [name for name in watched if name not in measured]):
        raise OptionError(f"--contestants {absent[0]}: the results have in common {', '.join(sorted(measured))}")
    if arguments.json == "-":
        print(json.dumps(found.to_dict(), ensure_ascii=False))  # noqa: T201
    else:
        print(found.text())  # noqa: T201
        if arguments.json is not None:
            text = json.dumps(found.to_dict(), ensure_ascii=False) + "\n"
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
