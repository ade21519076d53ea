"""Ranges that are kept in a bundle, so that the same graph is not run on the same data again.

The file records what it was made from: the graph's SHA-256 and the data's digest. It is used only if both are the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.bundle.manifest import Bundle
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.files.json_schema import Schema, check
from mtl_deploy.runtime.files.reading import DocumentError, parse_json

from .ranges import Range
from .statistics import TensorStatistics

PATH = "calibration.json"
VERSION = 3
"""3: ranges of more tensors, around activations; 2: ranges per style; in version 1 both styles shared those of S8."""
MOST = 3.4028235e38
"""The largest float32: no tensor of a graph can exceed it."""

_ENDS: Schema = {
    "type": "array",
    "items": {"type": "number", "minimum": -MOST, "maximum": MOST},
    "minItems": 2,
    "maxItems": 2,
}
SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "calibration.json of a bundle",
    "type": "object",
    "required": ["version", "graph_sha256", "data_digest", "ranges", "observed"],
    "properties": {
        "version": {"type": "integer"},
        "graph_sha256": {"type": "string"},
        "data_digest": {"type": "string"},
        "ranges": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": _ENDS},
            },
        },
        "observed": {"type": "object", "additionalProperties": {"anyOf": [_ENDS, {"type": "null"}]}},
    },
}
"""What :func:`pack` writes, as JSON Schema: see :mod:`mtl_deploy.runtime.files.json_schema`."""


@dataclass(frozen=True)
class CacheKey:
    """The graph and the data that ranges depend on.

    Attributes:
        graph: SHA-256 of the FP32 graph.
        data: digest of the calibration images.
    """

    graph: str
    data: str


@dataclass(frozen=True)
class FoundRanges:
    """The ranges that a calibration found.

    Attributes:
        ranges: by style, by method, by tensor.
        observed: smallest and largest value of every float tensor of the graph.
    """

    ranges: dict[str, dict[str, dict[str, Range]]]
    observed: dict[str, TensorStatistics]


def pack(key: CacheKey, found: FoundRanges) -> tuple[bytes, dict[str, Any]]:
    """Return the file, and the manifest's record of it.

    Args:
        key: the graph that was calibrated, and the data.
        found: the ranges.
    """
    document = {
        "version": VERSION,
        "graph_sha256": key.graph,
        "data_digest": key.data,
        "ranges": {
            style: {
                method: {name: [one.low, one.high] for name, one in sorted(tensors.items())}
                for method, tensors in sorted(methods.items())
            }
            for style, methods in sorted(found.ranges.items())
        },
        "observed": {
            name: [seen.minimum, seen.maximum] if seen.finite else None for name, seen in sorted(found.observed.items())
        },
    }
    content = (json.dumps(document, indent=0, allow_nan=False) + "\n").encode()
    return content, {"path": PATH, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def read(bundle: Bundle, key: CacheKey) -> tuple[FoundRanges | None, str]:
    """Return the ranges that are kept in a bundle, or None if they cannot be used; and a note for people that says which, and why.

    A cache of other data or another graph is stale, and one that does not match the manifest is damaged. Neither is an error, since
    the ranges can be found again.
    """
    record = bundle.manifest.calibration
    if not record.get("path"):
        return None, ""
    try:
        document = parse_json(bundle.read_checked(record["path"], str(record.get("sha256", ""))))
        if isinstance(document, dict) and document.get("version", VERSION) != VERSION:
            return None, "cached ranges are another release's"
        check(document, SCHEMA)
        made_from = CacheKey(document["graph_sha256"], document["data_digest"])
        ranges = {
            style: {
                method: {name: Range(float(low), float(high)) for name, (low, high) in tensors.items()}
                for method, tensors in methods.items()
            }
            for style, methods in document["ranges"].items()
        }
        observed = {
            name: TensorStatistics(float(ends[0]), float(ends[1])) if ends else TensorStatistics(0.0, 0.0, finite=False)
            for name, ends in document["observed"].items()
        }
        for methods in ranges.values():
            for tensors in methods.values():
                if not all(one.low <= 0 <= one.high for one in tensors.values()):
                    raise DocumentError("a range does not contain 0")
    except (BundleError, DocumentError):
        return None, "cached ranges are damaged"
    if made_from.graph != key.graph:
        return None, "cached ranges are stale (another graph)"
    if made_from.data != key.data:
        return None, "cached ranges are stale (other images)"
    return FoundRanges(ranges, observed), "cached ranges reused"
