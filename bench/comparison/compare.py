"""Whether two results differ, for two versions, settings or devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.bench.blocks.kinds import printed
from mtl_deploy.bench.results.result_file import COMPARE_SCHEMA
from mtl_deploy.bench.statistics.nested import ENOUGH_PROCESSES, Nested
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.errors import OptionError

from .change import Change, change_of
from .gate import Verdict, duration_of, judge
from .same_network import differences

COMPARE_VERSION = 1

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
class ResultComparison:
    """What two results say of one another.

    Attributes:
        changes: of every contestant and batch that both have.
        conditions: what was not the same, by name: its value in the first and in the second.
        warnings: what casts doubt on the comparison.
        durations: seconds that the two were measured for at a batch size; None: not known.
    """

    changes: tuple[Change, ...]
    conditions: Mapping[str, tuple[Any, Any]]
    warnings: tuple[str, ...]
    durations: tuple[float | None, float | None]

    def judged(self, limit: float, contestants: Sequence[str]) -> list[Verdict]:
        """Return what a limit says of contestants, at each batch size.

        Args:
            limit: percent by which the second may be slower.
            contestants: their names.
        """
        return [judge(change, limit, self.durations) for change in self.changes if change.contestant in contestants]

    def text(self) -> str:
        """Return the table, what differed otherwise, and the warnings."""
        several = len({change.batch for change in self.changes}) > 1
        rows = [
            [
                *([str(change.batch)] if several else []),
                change.contestant,
                printed(change.first_ms, "short ms"),
                printed(change.second_ms, "short ms"),
                f"{change.ratio.value:.3f}",
                f"{change.ratio.low:.3f} to {change.ratio.high:.3f}",
                change.verdict,
                "n/a" if change.detectable is None else f"{change.detectable:.1f}",
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
            "could detect, %",
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
            "schema": COMPARE_SCHEMA,
            "schema_version": COMPARE_VERSION,
            "changes": [change.to_dict() for change in self.changes],
            "conditions": {
                name: {"first": first, "second": second} for name, (first, second) in self.conditions.items()
            },
            "warnings": list(self.warnings),
        }


def compare(first: Mapping[str, Any], second: Mapping[str, Any], *, allow_different: bool = False) -> ResultComparison:
    """Compare two results.

    Args:
        first: a result; see :func:`~mtl_deploy.bench.results.result_file.read_result`.
        second: another.
        allow_different: whether results of different networks are compared; a warning then says in what they differ.

    Raises:
        OptionError: they are of different networks, or have no contestant at one batch size in common.
    """
    different = differences(first, second)
    if different and not allow_different:
        raise OptionError(
            f"the two results are of different networks ({'; '.join(different)}); compare two results of one network, or add "
            "--allow-different"
        )
    theirs = {batch["batch"]: batch["contestants"] for batch in second["batches"]}
    changes = []
    for batch in first["batches"]:
        others = theirs.get(batch["batch"], {})
        for name, contestant in batch["contestants"].items():
            if name in others:
                before, after = (_nested(one["samples_ms"]) for one in (contestant, others[name]))
                changes.append(change_of(batch["batch"], name, before, after))
    if not changes:
        raise OptionError(
            "the two results have no contestant at a batch size in common; measure both with the same options"
        )
    found = {name: tuple(_at(document, path) for document in (first, second)) for name, path in _CONDITIONS.items()}
    conditions = {name: (one, other) for name, (one, other) in found.items() if one != other}
    warnings = [f"the networks differ in {one}" for one in different] + _warnings(first, second, changes)
    return ResultComparison(tuple(changes), conditions, tuple(warnings), (duration_of(first), duration_of(second)))


def _warnings(first: Mapping[str, Any], second: Mapping[str, Any], changes: Sequence[Change]) -> list[str]:
    warnings = []
    processes = min(
        len(one["samples_ms"]) for d in (first, second) for b in d["batches"] for one in b["contestants"].values()
    )
    if processes < ENOUGH_PROCESSES:
        warnings.append(
            f"a result comes from {processes} process{'es' if processes > 1 else ''}: what differs from one start to the next is "
            f"not in the intervals; measure both with --processes {ENOUGH_PROCESSES} or more"
        )
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
