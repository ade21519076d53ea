"""Manifests of earlier releases in today's form.

All have ``schema_version`` 1, and the runtime reads them as they are: what they do not say has a default. Records that only people
and reports read have changed more, and are brought up to date here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .manifest import Manifest

_INT8 = ("int8", "int8-cpu")


def upgraded(manifest: Manifest) -> Manifest:
    """Return a manifest with every record in the form in which this release writes it.

    Args:
        manifest: of any release so far. What it says stays; nothing is measured anew.
    """
    provenance = {"notes": [], "left_out": {}} | manifest.provenance
    return replace(manifest, calibration=_calibration(manifest.calibration), provenance=provenance)


def _calibration(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a calibration: the first releases counted files that were skipped, and had ranges of one style."""
    if not record:
        return {}
    found = {"doubts": [], "budgets": {}} | dict(record)
    skipped = found.pop("skipped", 0)
    found.setdefault("left_out", {"files": skipped if isinstance(skipped, int) else len(skipped), "first": {}})
    found.setdefault("methods", dict.fromkeys(_INT8, found.get("method", "")))
    errors = found.get("errors", {})
    if not all(isinstance(value, Mapping) for value in errors.values()):
        found["errors"] = dict.fromkeys(_INT8, errors)
    found["coverage"] = [{"style": "tensorrt"} | dict(row) for row in found.get("coverage", [])]
    return found
