"""Reading what ``mtl-bench --json`` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.schema import ACCURACY, VERIFICATION
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.json_schema import Schema, check
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_bytes, shown

SCHEMA = "mtl-bench"
SCHEMA_VERSION = 2
COMPARE_SCHEMA = "mtl-bench compare"
_LEAST_MS, _MOST_MS = 1e-6, 1e9  # of a call: a nanosecond is no measurement, nor are eleven days
_ESSENTIAL = {
    "": ("schema_version", "batches", "contestants"),
    "batch": ("batch", "contestants"),
    "measured": ("samples_ms",),
    "interval": ("value", "low", "high"),
}
"""By definition of the schema ("" is its root), the fields without which a result is of no use."""


def read_result(file: Path) -> dict[str, Any]:
    """Read a result and check that it has this release's form.

    Fields that an earlier release did not write may be missing, and those of a later one are passed over; what is there has the
    type that ``result.schema.json`` gives.

    Args:
        file: what ``mtl-bench --json`` wrote; it may be a pipe.

    Returns:
        the document that docs/benchmarking.md describes.

    Raises:
        OptionError: the file cannot be read, is no result, or another release's; where it is malformed, the error names the place.
    """
    try:
        document = parse_json(read_bytes(file, regular=False))
    except OSError as error:
        raise OptionError(f"{file}: {describe(error)}; write a result with mtl-bench BUNDLE --json FILE") from error
    except DocumentError as error:
        raise OptionError(f"{file}: {error}; write a result with mtl-bench BUNDLE --json FILE") from error
    other = _other_document(document)
    if other is not None:
        raise OptionError(f"{file}: {other}, not a result of mtl-bench; write one with mtl-bench BUNDLE --json FILE")
    if document["schema_version"] != SCHEMA_VERSION:
        raise OptionError(
            f"{file}: schema version {shown(document['schema_version'])}, this release reads {SCHEMA_VERSION}; measure again, or "
            "install the release that wrote it"
        )
    try:
        check(document, readable_schema())
        _check_batches(document)
    except DocumentError as error:
        raise OptionError(f"{file}: malformed result: {error}; measure again") from error
    found: dict[str, Any] = document
    return found


def _other_document(document: Any) -> str | None:
    """Return what a document is that is no result, as far as it can be told; None of one that may be a result."""
    if not isinstance(document, dict):
        return "a list or a single value"
    if document.get("schema") == COMPARE_SCHEMA:
        return "a comparison of two results"
    if "artifacts" in document and "signature" in document:
        return "a bundle's manifest"
    if "predictions" in document:
        return "predictions of mtl-infer"
    if document.get("schema", SCHEMA) != SCHEMA or "schema_version" not in document:
        return "another document"
    return None


@lru_cache(maxsize=1)
def readable_schema() -> Schema:
    """Return ``result.schema.json`` as far as readers rely on it: types and bounds, and the essential fields."""
    text = (Path(__file__).parents[1] / "result.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = _loosened(json.loads(text))
    schema["required"] = list(_ESSENTIAL[""])
    for name, definition in schema["$defs"].items():
        definition["required"] = list(_ESSENTIAL.get(name, ()))
    schema["properties"] |= {
        "accuracy": _loosened(ACCURACY),
        "verification": {"type": "array", "items": _loosened(VERIFICATION)},
    }
    return schema


def _loosened(schema: Any) -> Any:
    """Return a schema whose objects may lack any field and may have others."""
    if isinstance(schema, (list, tuple)):
        return [_loosened(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {
        key: value
        for key, value in schema.items()
        if not (key == "additionalProperties" and value is False)
        and not (key == "required" and isinstance(value, list))
    }
    return {key: _loosened(value) for key, value in kept.items()}


def _check_batches(document: Mapping[str, Any]) -> None:
    for position, batch in enumerate(document["batches"]):
        for name, measured in batch["contestants"].items():
            if name not in document["contestants"]:
                raise DocumentError(f"batches[{position}].contestants: {shown(name)} is not described in contestants")
            times = [time for rounds in measured["samples_ms"] for calls in rounds for time in calls]
            if not _LEAST_MS <= min(times) <= max(times) <= _MOST_MS:
                raise DocumentError(
                    f"batches[{position}].contestants: {shown(name)} has calls of {min(times):g} to {max(times):g} ms"
                )
