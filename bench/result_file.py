"""Reading what ``mtl-bench --json`` wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.errors import OptionError

SCHEMA = "mtl-bench"
SCHEMA_VERSION = 2


def read_result(file: Path) -> dict[str, Any]:
    """Read a result and check that it has this release's form, as far as commands rely on it.

    Args:
        file: what ``mtl-bench --json`` wrote.

    Returns:
        the document that docs/benchmarking.md describes.

    Raises:
        OptionError: the file cannot be read, is no result, or another release's.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(
            f"{file}: {error.strerror or error}; write a result with mtl-bench BUNDLE --json FILE"
        ) from error
    except ValueError as error:  # UnicodeDecodeError among them
        raise OptionError(f"{file}: not JSON ({error}); write a result with mtl-bench BUNDLE --json FILE") from error
    if not isinstance(document, dict) or document.get("schema", SCHEMA) != SCHEMA or "schema_version" not in document:
        raise OptionError(f"{file}: not a result of mtl-bench; write one with mtl-bench BUNDLE --json FILE")
    if document["schema_version"] != SCHEMA_VERSION:
        raise OptionError(
            f"{file}: schema version {document['schema_version']!r}, this release reads {SCHEMA_VERSION}; measure again, or "
            "install the release that wrote it"
        )
    try:
        _check(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise OptionError(f"{file}: malformed result ({type(error).__name__}: {error}); measure again") from error
    return document


def _check(document: dict[str, Any]) -> None:
    if not document["batches"]:
        raise ValueError("no batch was measured")
    for batch in document["batches"]:
        int(batch["batch"])
        for name, contestant in batch["contestants"].items():
            if name not in document["contestants"]:
                raise ValueError(f"contestant {name!r} is not described")
            for rounds in contestant["samples_ms"]:
                for calls in rounds:
                    if not calls or not all(0 < float(value) < math.inf for value in calls):
                        raise ValueError(f"contestant {name!r} has a round without calls, or a call without a time")
            if not contestant["samples_ms"] or not all(contestant["samples_ms"]):
                raise ValueError(f"contestant {name!r} has no samples")
