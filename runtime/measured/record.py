"""The file of measurements, beside the manifest: what was measured, on which processor, with which libraries.

The manifest does not list it, so that a device can write it without changing what the manifest says. Whatever it says, only files
of the manifest run: it says which of them is faster. A file that is damaged is named, and is as if it were not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, Manifest
from mtl_deploy.runtime.files.json_schema import Schema, check
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_bytes

from .here import TITLES, Processor

VERSION = 1
MOST_RUNS = 32
"""Runs of a file: of other machines, libraries or threads; where there are more, the oldest ones go."""
MOST_ROUNDS = 1000
_MOST_BYTES = 4 << 20
_MOST_CANDIDATES = 64
_TEXT: Schema = {
    "type": "string",
    "maxLength": 1000,
    "pattern": "^[^\\x00-\\x1f\\x7f]*$",
    "description": "text in one line",
}
_TIME: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


SCHEMA: Schema = _object(
    version={"const": VERSION},
    runs={
        "type": "array",
        "maxItems": MOST_RUNS,
        "items": _object(
            processor=_object(
                name=_TEXT,
                machine=_TEXT,
                cores={"type": "integer", "minimum": 1, "maximum": 1 << 20},
                instructions=_TEXT,
            ),
            libraries={"type": "object", "additionalProperties": _TEXT},
            threads={"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1 << 20}, {"type": "null"}]},
            batch={"type": "integer", "minimum": 1, "maximum": 1 << 16},
            measured=_TEXT,
            candidates={
                "type": "array",
                "maxItems": _MOST_CANDIDATES,
                "items": _object(
                    path={"type": "string", "maxLength": 1024},
                    sha256={"type": "string", "maxLength": 128},
                    precision=_TEXT,
                    backend={"enum": list(TITLES)},
                    milliseconds={"type": "array", "maxItems": MOST_ROUNDS, "items": _TIME},
                    fault={"anyOf": [_TEXT, {"type": "null"}]},
                ),
            },
        ),
    },
)


@dataclass(frozen=True)
class Candidate:
    """A graph on a backend.

    Attributes:
        path: the graph's, in the bundle.
        sha256: of the graph.
        precision: of the graph.
        backend: that ran it.
        milliseconds: of a call, one figure for each round; all candidates of a run have the same rounds.
        fault: why it must not be chosen: it does not run, or its answers are wrong; None: nothing speaks against it.
    """

    path: str
    sha256: str
    precision: str
    backend: str
    milliseconds: tuple[float, ...] = ()
    fault: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it ran and answered as it should."""
        return self.fault is None and bool(self.milliseconds)

    def __str__(self) -> str:
        """For people."""
        return f"{self.path} on {TITLES[self.backend]}"


@dataclass(frozen=True)
class Run:
    """A measurement of all graphs on all backends of a machine.

    Attributes:
        processor: that it ran on.
        libraries: their versions, by backend.
        threads: of each backend; None: its own number, as when ``load`` is called without ``threads=``.
        batch: images of a call.
        measured: when, as ISO 8601 writes it.
        candidates: what ran.
    """

    processor: Processor
    libraries: Mapping[str, str]
    threads: int | None
    batch: int
    measured: str
    candidates: tuple[Candidate, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return its part of the file."""
        return asdict(self) | {
            "libraries": dict(self.libraries),
            "candidates": [asdict(one) for one in self.candidates],
        }

    @property
    def on(self) -> str:
        """What it ran on, for people."""
        return f"{self.processor} with {named(self.libraries)}" + (
            "" if self.threads is None else threads_text(self.threads)
        )

    def replaces(self, other: Run) -> bool:
        """Whether it says anew what another one said."""
        words = ("processor", "libraries", "threads")
        return all(getattr(self, word) == getattr(other, word) for word in words)


def named(libraries: Mapping[str, str]) -> str:
    """Return libraries for people."""
    return " and ".join(f"{TITLES[name]} {version}" for name, version in sorted(libraries.items()) if name in TITLES)


def threads_text(threads: int) -> str:
    """Return a number of threads for people, after what runs on them."""
    return f", {threads} thread{'s' if threads > 1 else ''}"


@dataclass(frozen=True)
class Reading:
    """What a bundle's file of measurements says.

    Attributes:
        runs: in order of time; empty where there is no file.
        problem: why the file does not count; None where it does, or where there is none.
        exists: whether there is a file.
    """

    runs: tuple[Run, ...] = ()
    problem: str | None = None
    exists: bool = False


def read(folder: Path) -> Reading:
    """Read a bundle's file of measurements.

    Args:
        folder: the bundle's.
    """
    file = folder / MEASURED_FILE
    try:
        document = parse_json(read_bytes(file, _MOST_BYTES))
        check(document, SCHEMA)
        runs = tuple(_run(one) for one in document["runs"])
    except FileNotFoundError:
        return Reading()
    except (OSError, DocumentError) as error:
        what = str(error) if isinstance(error, DocumentError) else describe(error)
        return Reading(
            problem=f"{file} is damaged and does not count ({what}); measure again: mtl-bench {folder} --record",
            exists=True,
        )
    return Reading(runs, exists=True)


def _run(data: Mapping[str, Any]) -> Run:
    of = data["processor"]
    candidates = tuple(
        Candidate(
            one["path"],
            one["sha256"],
            one["precision"],
            one["backend"],
            tuple(map(float, one["milliseconds"])),
            one["fault"],
        )
        for one in data["candidates"]
    )
    if len({len(one.milliseconds) for one in candidates if one.usable}) > 1:
        raise DocumentError("candidates of one run have different numbers of rounds")
    machine = Processor(of["name"], of["machine"], of["cores"], of["instructions"])
    return Run(machine, dict(data["libraries"]), data["threads"], data["batch"], data["measured"], candidates)


def packed(runs: Sequence[Run]) -> bytes:
    """Return the file's content."""
    document = {"version": VERSION, "runs": [run.to_dict() for run in runs]}
    return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def with_run(former: Sequence[Run], manifest: Manifest, run: Run | None = None) -> tuple[Run, ...]:
    """Return the runs of a file to which one is added. Runs of graphs that the bundle no longer has go.

    Args:
        former: the file's so far.
        manifest: of the bundle as it will be.
        run: the new one; None: there is none.
    """
    known = {artifact.sha256 for artifact in manifest.artifacts}
    kept = [
        one
        for one in former
        if not (run is not None and run.replaces(one)) and {each.sha256 for each in one.candidates} <= known
    ]
    return tuple([*kept, *([] if run is None else [run])][-MOST_RUNS:])
