"""An application from its start to its first prediction: what :mod:`~mtl_deploy.bench.sections.cold_start.starts` starts.

It imports what an application does, the runtime, and nothing of the benchmark. Its standard output is one line of JSON: points of
time in nanoseconds of ``time.monotonic_ns``, a clock that its parent shares.
"""

import time

_STARTED = time.monotonic_ns()  # before any other import

import json  # noqa: E402
import sys  # noqa: E402
from contextlib import ExitStack  # noqa: E402


def main() -> None:
    """Load models, predict one batch with each, and print when that was.

    Its arguments are a JSON list of the models' paths and keywords for :func:`~mtl_deploy.runtime.load`, and a ``.npy`` file.
    """
    plan, file = json.loads(sys.argv[1]), sys.argv[2]
    from mtl_deploy.runtime import load

    imported = time.monotonic_ns()
    import numpy as np

    batch = np.load(file)  # an application's comes from a camera
    loading = time.monotonic_ns()
    with ExitStack() as stack:
        models = [stack.enter_context(load(path, **keywords)) for path, keywords in plan]
        loaded = time.monotonic_ns()
        for model in models:
            model(batch)
        predicted = time.monotonic_ns()
    stamps = {"started": _STARTED, "imported": imported, "loading": loading, "loaded": loaded, "predicted": predicted}
    json.dump(stamps, sys.stdout)
