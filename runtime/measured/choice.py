"""What a bundle's measurements say about a choice: which of its graphs is fastest here, on which backend."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, Artifact

from .here import TITLES, libraries, processor
from .ratio import ratio
from .record import Candidate, Reading, Run, named, threads_text

_LITTLE = 0.9  # of FP32's time: less of a gain than that does not pay, as INT8 costs accuracy
INT8 = ("int8-cpu", "int8")
"""The styles of INT8 graphs, in the order in which processors take them without measurements."""


@dataclass(frozen=True)
class Wanted:
    """What a choice is among.

    Attributes:
        artifacts: graphs that do what is asked for, the one that is taken without measurements first.
        backend: what runs that one without measurements.
        backends: what may run them.
        threads: of the backend; None: its own number.
    """

    artifacts: tuple[Artifact, ...]
    backend: str
    backends: Collection[str]
    threads: int | None = None


@dataclass(frozen=True)
class Best:
    """The graph and the backend to take.

    Attributes:
        artifact: the graph.
        backend: that runs it.
        why: what the measurements say, for people.
    """

    artifact: Artifact
    backend: str
    why: str


def matching(reading: Reading, backends: Collection[str], threads: int | None) -> tuple[Run | None, str]:
    """Return the newest run that was measured as things are here; None where there is none, and why.

    Args:
        reading: the bundle's.
        backends: whose versions must be those of the run.
        threads: of the backend, likewise.
    """
    here, versions = processor(), libraries(backends)
    for run in reversed(reading.runs):
        if (
            run.processor == here
            and run.threads == threads
            and all(run.libraries.get(n) == v for n, v in versions.items())
        ):
            return run, ""
    if not reading.runs:
        return None, f"{MEASURED_FILE} holds no measurement of these graphs"
    last = reading.runs[-1]
    if last.processor != here:
        return None, f"{MEASURED_FILE} is of another processor ({last.processor}; here: {here})"
    if any(last.libraries.get(name) != version for name, version in versions.items()):
        return None, f"{MEASURED_FILE} is of other libraries ({named(last.libraries)}; here: {named(versions)})"
    given = "its default number of threads" if last.threads is None else threads_text(last.threads).removeprefix(", ")
    return None, f"{MEASURED_FILE} was measured with {given}"


def latest_here(reading: Reading) -> Run | None:
    """Return the newest run on such a processor with these libraries, on any number of threads; None where there is none."""
    here, versions = processor(), libraries()
    return next((run for run in reversed(reading.runs) if (run.processor, run.libraries) == (here, versions)), None)


def best(reading: Reading, wanted: Wanted) -> Best:
    """Return what to take; without a measurement that counts here, what is taken without any."""
    first = wanted.artifacts[0]
    run, lack = matching(reading, wanted.backends, wanted.threads)
    if run is None:
        return Best(first, wanted.backend, lack)
    found = _of(run, wanted)
    usual = next((one for one, artifact in found if artifact is first and one.backend == wanted.backend), None)
    if usual is None:
        return Best(first, wanted.backend, f"{MEASURED_FILE} holds no measurement of {first.path}")
    usable = {one: artifact for one, artifact in found if one.usable}
    if not usable:
        return Best(first, wanted.backend, f"measured here: {usual}: {usual.fault}")
    taken = fastest(list(usable), usual)
    if not usual.usable:
        text = f"{usual}: {usual.fault}"
    elif taken is usual:
        text = "nothing else was clearly faster"
    else:
        text = f"{usual} {_ms(usual)} ({ratio(taken.milliseconds, usual.milliseconds)})"
    return Best(usable[taken], taken.backend, f"measured here: {_ms(taken)}, and {text}")


def fastest(candidates: Sequence[Candidate], usual: Candidate) -> Candidate:
    """Return the fastest of usable candidates that is clearly faster than the usual one, or the usual one, if that is usable."""
    for one in sorted(candidates, key=lambda one: median(one.milliseconds)):
        if not usual.usable or ratio(one.milliseconds, usual.milliseconds).is_clearly_less:
            return one
    return usual


def _of(run: Run, wanted: Wanted) -> list[tuple[Candidate, Artifact]]:
    graphs = {artifact.sha256: artifact for artifact in reversed(wanted.artifacts)}
    return [
        (one, graphs[one.sha256]) for one in run.candidates if one.sha256 in graphs and one.backend in wanted.backends
    ]


def _ms(one: Candidate) -> str:
    return f"{median(one.milliseconds):.3g} ms"


def int8_on(run: Run, backend: str) -> Candidate | None:
    """Return the INT8 graph that ``precision="int8"`` takes on a backend of a run; None where none ran."""
    found = [one for one in run.candidates if one.backend == backend and one.usable and one.precision in INT8]
    found.sort(key=lambda one: INT8.index(one.precision))
    return fastest(found, found[0]) if found else None


def where_int8_does_not_pay(run: Run, backends: Collection[str] = tuple(TITLES)) -> list[str]:
    """Return a line, with the figures, for each backend on which INT8 is not clearly faster than FP32."""
    lines = []
    for backend in backends:
        full = next((c for c in run.candidates if (c.backend, c.precision) == (backend, "fp32") and c.usable), None)
        int8 = int8_on(run, backend)
        if full is None or int8 is None:
            continue
        compared = ratio(int8.milliseconds, full.milliseconds)
        if compared.is_clearly_less:
            continue
        on = f"on {TITLES[backend]} here"
        verdict = f"INT8 does not pay {on}" if compared.low > _LITTLE else f"Whether INT8 pays {on} is not certain"
        lines.append(f"{verdict}: {int8.path} takes {_ms(int8)}, {full.path} {_ms(full)} ({compared})")
    return lines
