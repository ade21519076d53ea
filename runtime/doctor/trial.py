"""One run of each file of a bundle on an image of zeros, in a process that may end at any of them.

``main()`` takes a bundle and paths in it, where an empty one is what loading the bundle chooses. It prints one line of JSON for
each: ``path``, then ``ms`` of the first run with the ``artifact`` that ran, or the ``fault``. It writes nothing.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import FallbackWarning, MtlError
from mtl_deploy.runtime.loading import load
from mtl_deploy.runtime.model import Model


def main() -> None:
    """Try the files that the command line names."""
    folder, *paths = sys.argv[1:]
    for path in paths:
        sys.stdout.write(json.dumps({"path": path} | _once(Path(folder) / path)) + "\n")
        sys.stdout.flush()


def _once(file: Path) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with load(file, runtime_cache=False) as model:
                images = _zeros(model)
                started = time.perf_counter()
                model(images)
                took = 1000 * (time.perf_counter() - started)
                artifact = None if model.artifact is None else model.artifact.path
        except MtlError as error:
            return {"fault": str(error)}
    fallback = next((str(one.message) for one in caught if issubclass(one.category, FallbackWarning)), None)
    return {"ms": round(took, 3), "artifact": artifact, "warning": fallback}


def _zeros(model: Model) -> Any:
    """Return the smallest batch that the artifact takes, ``(N, H, W, C) uint8`` or ``(N, C, H, W) float32``."""
    of = model.signature.preprocessing
    count = 1 if model.artifact is None else model.artifact.batch_min
    if of.input == "uint8":
        return np.zeros((count, of.height, of.width, of.channel_count), np.uint8)
    return np.zeros((count, of.channel_count, of.height, of.width), np.float32)
