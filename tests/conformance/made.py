"""Make, with a real TensorRT module, what the runtime and the exporter make of its classes. Runs in a process of its own.

    python made.py MODULE '["library", ...]'

Prints what came of it as JSON. What only a GPU gives is not made.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from names import load

from mtl_deploy.export.engines.build import _monitor
from mtl_deploy.runtime.backends.tensorrt.library import Library
from mtl_deploy.runtime.backends.tensorrt.log import Messages, logger_for
from mtl_deploy.runtime.backends.tensorrt.profile import make_profiler
from mtl_deploy.runtime.backends.tensorrt.start import start_builder, start_runtime
from mtl_deploy.runtime.errors import BackendError


def logger(trt: Any) -> list[Any]:
    """Have each severity said through our logger."""
    messages, other = Messages(), Messages()
    found = logger_for(trt, messages)
    assert isinstance(found, trt.ILogger)
    assert logger_for(trt, other) is found
    messages.clear()
    for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        found.log(getattr(trt.ILogger.Severity, name), name)
    return [messages.errors, messages.warnings, other.errors]


def profiler(trt: Any) -> list[Any]:
    said: list[Any] = []
    made = make_profiler(trt, lambda name, ms: said.append([name, ms]))
    assert isinstance(made, trt.IProfiler)
    made.report_layer_time("conv1", 0.5)
    return said


def monitor(trt: Any) -> list[Any] | None:
    if not hasattr(trt, "IProgressMonitor"):
        return None
    said: list[str] = []
    cancelled = threading.Event()
    made = _monitor(trt, cancelled, said.append)
    assert isinstance(made, trt.IProgressMonitor)
    made.phase_start("phase", None, 2)
    goes_on = made.step_complete("phase", 0)
    cancelled.set()
    stops = made.step_complete("phase", 1)
    made.phase_finish("phase")
    return [len(said), goes_on, stops]


def dtypes(library: Library) -> dict[str, str]:
    """Return numpy's word for each type, by ours; where the module has one of its own, both must agree."""
    trt, found = library.module, {}
    for name, member in trt.DataType.__members__.items():
        try:
            ours = library.numpy_dtype(member)
        except BackendError:
            continue
        found[name] = ours.str
        if library.major != 8:  # 8.6's fails with NumPy 1.24 and later
            assert np.dtype(trt.nptype(member)) == ours, name
    return found


def flags(library: Library) -> dict[str, Any]:
    """Do the arithmetic that is done with enums, and use them as keys."""
    trt = library.module
    keys = {trt.TensorIOMode.INPUT: 1, trt.TensorIOMode.OUTPUT: 2}
    found: dict[str, Any] = {
        "modes": [keys[trt.TensorIOMode.INPUT], keys[trt.TensorIOMode.OUTPUT]],
        "severities": [int(getattr(trt.ILogger.Severity, name)) for name in ("ERROR", "WARNING", "INFO")],
    }
    if hasattr(trt, "Builder"):
        found["strongly_typed"] = library.strongly_typed
        found["network"] = library.network_flags()
        sources = list(trt.TacticSource.__members__.values()) if hasattr(trt, "TacticSource") else []
        found["tactics"] = sum(1 << int(source) for source in sources)
    return found


def started(library: Library) -> dict[str, str]:
    """Start a runtime and a builder; or be told why they do not start. Without a GPU both is in order, a crash is not."""
    found = {}
    for name, start in (("runtime", start_runtime), ("builder", start_builder)):
        if name == "builder" and not hasattr(library.module, "Builder"):
            continue
        messages = Messages()
        try:
            made = start(library, messages)
        except BackendError as error:
            found[name] = str(error)
        else:
            found[name] = type(made).__name__
            if name == "runtime":
                assert made.deserialize_cuda_engine(b"no plan" * 50) is None
                found["refuses"] = messages.reason()
    return found


def main() -> None:
    trt = load(*sys.argv[1:3])
    name = "tensorrt-rtx" if "rtx" in trt.__name__ else "tensorrt"
    library = Library(name, trt.__version__, trt)
    found: dict[str, Any] = {
        "version": trt.__version__,
        "logger": logger(trt),
        "profiler": profiler(trt),
        "monitor": monitor(trt),
        "dims": [tuple(trt.Dims((1, -1, 3))), list(trt.Dims([4])), len(trt.Dims((1, 2)))],
        "dtypes": dtypes(library),
        "flags": flags(library),
        "started": started(library),
    }
    with suppress(TypeError):
        found["iterates"] = [size < 0 for size in trt.Dims((1, -1))]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
