"""All samples as a table for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = ("contestant", "batch", "process", "round", "call", "latency_ms")


def csv_samples(document: Mapping[str, Any]) -> str:
    """Return every call of a JSON document as CSV; processes, rounds and calls count from 1.

    Args:
        document: of :func:`~mtl_deploy.bench.results.document.document_of`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for batch in document["batches"]:
        for name, contestant in batch["contestants"].items():
            for process, rounds in enumerate(contestant["samples_ms"], 1):
                for number, calls in enumerate(rounds, 1):
                    writer.writerows(
                        [name, batch["batch"], process, number, i, value] for i, value in enumerate(calls, 1)
                    )
    return text.getvalue()
