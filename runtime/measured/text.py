"""A measurement as text: each graph on each backend, and where INT8 does not pay."""

from __future__ import annotations

from statistics import median

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE
from mtl_deploy.runtime.console.command import table

from .choice import where_int8_does_not_pay
from .here import TITLES
from .ratio import ratio
from .record import Candidate, Run


def text(run: Run) -> str:
    """Return a measurement for people, with a newline at the end."""
    full = {one.backend: one for one in run.candidates if one.precision == "fp32" and one.usable}
    rows = [_row(one, full.get(one.backend)) for one in run.candidates]
    images = "1 image" if run.batch == 1 else f"{run.batch} images"
    head = f"Measured in turn, {images} per call, on {run.on} ({MEASURED_FILE}):"
    columns = ["graph", "on", "ms", "times FP32", "99 % interval", "note"]
    return "\n".join([head, table(columns, rows), *where_int8_does_not_pay(run)]) + "\n"


def _row(one: Candidate, full: Candidate | None) -> list[str]:
    figures = ["", "", ""]
    if one.milliseconds:
        figures[0] = f"{median(one.milliseconds):.3g}"
        if full is not None and one is not full:
            compared = ratio(one.milliseconds, full.milliseconds)
            figures[1:] = [f"{compared.median:.2f}", f"{compared.low:.2f} to {compared.high:.2f}"]
    return [one.path, TITLES[one.backend], *figures, "" if one.fault is None else f"not taken: {one.fault}"]
