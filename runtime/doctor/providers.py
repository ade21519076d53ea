"""Which execution providers the installed ONNX Runtime has, asked in a process of its own."""

from __future__ import annotations

import json
import sys

from mtl_deploy.runtime.errors import BackendError

from .children import run

_TIMEOUT_S = 60.0


def providers() -> tuple[list[str], str | None]:
    """Return ONNX Runtime's providers in its order of preference, and why there are none."""
    ended = run(__name__, (), _TIMEOUT_S)
    if ended.fault is not None or not ended.lines:
        return [], f"importing ONNX Runtime {ended.fault or 'said nothing'}"
    found: dict[str, object] = json.loads(ended.lines[-1])
    fault = found["fault"]
    names = found["providers"]
    return [str(name) for name in names] if isinstance(names, list) else [], None if fault is None else str(fault)


def main() -> None:
    """Print the providers as one line of JSON."""
    from mtl_deploy.runtime.backends.onnxruntime.backend import available_providers

    try:
        found: dict[str, object] = {"providers": available_providers(), "fault": None}
    except BackendError as error:
        found = {"providers": [], "fault": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")
