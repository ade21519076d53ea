"""Ranges kept in a bundle, so that the same graph and data are not observed twice.

The file names what it was made from: the graph's SHA-256 and the data's digest. It is used only where both are the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.bundle import Bundle
from mtl_deploy.runtime.errors import BundleError

from .observe import TensorStatistics
from .ranges import Range

PATH = "calibration.json"
VERSION = 2
"""2: ranges a style; before, those of S8 served both."""


@dataclass(frozen=True)
class CacheKey:
    """What ranges depend on.

    Attributes:
        graph: SHA-256 of the FP32 graph.
        data: digest of the calibration images.
    """

    graph: str
    data: str


@dataclass(frozen=True)
class Found:
    """What a calibration found.

    Attributes:
        ranges: by style, by method, by tensor.
        observed: smallest and largest value of every float tensor of the graph.
    """

    ranges: dict[str, dict[str, dict[str, Range]]]
    observed: dict[str, TensorStatistics]


def pack(key: CacheKey, found: Found) -> tuple[bytes, dict[str, Any]]:
    """Return the file, and the manifest's record of it.

    Args:
        key: what was calibrated, on what.
        found: by it.
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


def read(bundle: Bundle, key: CacheKey) -> tuple[Found | None, str]:
    """Return what a bundle's calibration found, or None; and, for people, which of the two and why.

    A cache of other data or another graph is stale, one that is not the manifest's is damaged: neither is used, and neither is an
    error, since the ranges can be found again.
    """
    record = bundle.manifest.calibration
    if not record.get("path"):
        return None, ""
    try:
        document = json.loads(bundle.read_checked(str(record["path"]), str(record["sha256"])))
        if document["version"] != VERSION:
            return None, "cached ranges are another release's"
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
    except (BundleError, ValueError, KeyError, TypeError, AttributeError):
        return None, "cached ranges are damaged"
    if made_from.graph != key.graph:
        return None, "cached ranges are stale (another graph)"
    if made_from.data != key.data:
        return None, "cached ranges are stale (other images)"
    return Found(ranges, observed), "cached ranges reused"
