"""The report of a calibration for people: what INT8 costs each task."""

from __future__ import annotations

from typing import Any

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.runtime.bundle.manifest import Bundle
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.measured.choice import latest_here
from mtl_deploy.runtime.measured.record import read
from mtl_deploy.runtime.measured.text import text as measured_text
from mtl_deploy.runtime.selection import what_loads

_NOISY_DB = -30.0  # -20 is poor: one part in a hundred of a tensor's power is rounding
_CLIPPED = 0.01
_UNUSED = 0.75  # two of eight bits
_SHOWN = 10  # files that were left out
_FIELDS = ("images", "held_out", "method", "ranges", "warnings", "left_out", "kept")


def report(bundle: Bundle) -> str:
    """Return the report: the images, the layers in higher precision, every task at every precision, and ranges that fit badly.

    It is empty where the bundle has no INT8 graphs.
    """
    record = bundle.manifest.calibration
    if not record:
        return ""
    if missing := [key for key in _FIELDS if key not in record]:
        return f"INT8: the bundle's record of the calibration is incomplete (it has no {missing[0]}).\n"
    lines = [
        f"INT8: {record['images']} images for calibration, {record['held_out']} held out for the figures below; ranges by "
        f"{record['method']}, {record['ranges']}.",
        *(f"warning: {visible(text)}" for text in [*record["warnings"], *record.get("doubts", [])]),
    ]
    lines += _left_out(record["left_out"])
    search = _search(bundle)
    if search:
        kept = record["kept"]
        cost = f"; int8-cpu takes {search['latency']:.2f} times as long as with none" if "latency" in search else ""
        if "summary" in search:
            lines.append(f"Budgets {search['summary']}.")
        if kept:
            which = (
                ", ".join(kept) if _quantizes(bundle) else f"all {len(kept)} layers, so that nothing is left in INT8"
            )
            lines.append(f"In higher precision: {which}{cost}.")
    matrix = AccuracyMatrix.from_dict(bundle.manifest.accuracy)
    lines += _beyond(matrix, search.get("budgets", {}))
    text = "\n".join(lines) + "\n\n" + matrix.text() + "\n"
    return text + _coverage(record.get("coverage", [])) + _measured(bundle)


def _measured(bundle: Bundle) -> str:
    """Return how fast the graphs run here, where that was measured."""
    run = latest_here(read(bundle.path))
    return "" if run is None else f"\n{measured_text(run)}{what_loads(bundle, run.threads)}"


def _left_out(record: dict[str, Any]) -> list[str]:
    """List files that were not used, the first of them with the reason."""
    if not record["files"]:
        return []
    first = [visible(f"  {name}: {reason}") for name, reason in list(record["first"].items())[:_SHOWN]]
    more = [f"  ... and {record['files'] - len(first)} more"] if record["files"] > len(first) else []
    return [f"left out: {counted(record['files'], 'file')}", *first, *more]


def _beyond(matrix: AccuracyMatrix, budgets: dict[str, float]) -> list[str]:
    """Return a warning for each task that loses more than its budget on the held-out images."""
    beyond = [
        cell
        for cell in matrix.cells
        if cell.variant in ("int8", "int8-cpu") and (cell.drop or 0.0) > budgets.get(cell.task, float("inf"))
    ]
    return [
        f"warning: on the held-out images {cell.variant} loses more of task {cell.task!r} than its budget allows: calibrate on "
        "more images, or set a smaller budget"
        for cell in beyond
    ]


def _search(bundle: Bundle) -> dict[str, Any]:
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.precision) == ("shared", "int8"):
            found: dict[str, Any] = artifact.details.get("search", {})
            return found
    return {}


def _quantizes(bundle: Bundle) -> bool:
    """Return whether any layer of the INT8 graphs computes in INT8."""
    graphs = [artifact for artifact in bundle.manifest.artifacts if artifact.precision == "int8"]
    return any(artifact.details.get("nodes", 1) for artifact in graphs if artifact.backend == "onnxruntime")


def _stands_out(row: dict[str, Any]) -> bool:
    """Return whether a tensor's range fits badly enough to look at it: most tensors of most networks are at -35 dB or below."""
    noise = row.get("noise_db")
    return bool((noise is not None and noise > _NOISY_DB) or row["clipped"] > _CLIPPED or row["unused"] > _UNUSED)


def _coverage(rows: list[dict[str, Any]]) -> str:
    """Return the tensors whose ranges fit so badly that they stand out; empty where none does."""
    rows = [row for row in rows if _stands_out(row)]
    if not rows:
        return ""
    graphs = {"tensorrt": "int8", "cpu": "int8-cpu"}
    cells = [
        [
            graphs.get(row.get("style", "tensorrt"), "n/a"),  # earlier releases had ranges of one style
            str(row["tensor"]),
            "n/a" if row.get("noise_db") is None else f"{row['noise_db']:.0f}",
            f"{100 * row['clipped']:.3g}",
            f"{100 * row['unused']:.3g}",
            "n/a" if row["dead_channels"] is None else str(row["dead_channels"]),
            ", ".join(row["heads"]),
        ]
        for row in rows
    ]
    columns = ["graph", "tensor", "noise, dB", "clipped, %", "range unused, %", "dead channels", "feeds"]
    return f"\nRanges that fit badly:\n{table(columns, cells)}\n"
