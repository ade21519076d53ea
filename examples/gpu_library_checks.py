"""The checks of gpu_check.py on TensorRT and cuda-bindings themselves: what their real Python modules do with a GPU.

Without a GPU, tests/conformance compares names, signatures and what can be constructed; these check the rest. Each returns what it
found or raises; ``skipped`` in the result is the reason why it was skipped.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from gpu_machine import Machine, compare, failure_of, in_child, run_module

from mtl_deploy.runtime import BackendError, NoGpuError
from mtl_deploy.runtime.backends.tensorrt.library import Library, import_library, installed
from mtl_deploy.runtime.backends.tensorrt.log import Messages
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.backends.tensorrt.start import built_for, start_builder, start_runtime
from mtl_deploy.runtime.cuda.gpu import find_gpu

HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


def versions() -> dict[str, Any]:
    """Return the versions of GPU, driver, cuda-bindings, and libraries with the CUDA version that their wheels are built for."""
    gpu = find_gpu()
    libraries = {}
    for name in installed():
        cuda = built_for(name)
        try:
            libraries[name] = (
                f"{import_library(name).version}, {'its wheel says no CUDA' if cuda is None else f'CUDA {cuda}'}"
            )
        except BackendError as error:
            libraries[name] = str(error)
    return {
        "gpu": gpu.name,
        "sm": gpu.sm,
        "memory_GB": round(gpu.memory_bytes / 1e9, 1),
        "driver_cuda": gpu.driver,
        "libraries": libraries,
        "cuda_bindings": importlib.metadata.version("cuda-bindings"),
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


# a hidden GPU


def hidden_gpu(machine: Machine) -> dict[str, Any]:
    """Hide the GPU from each library: running and building must fail with an error of this project.

    What the library's own runtime and builder do is recorded, each in a separate process: this project does not start them then.
    """
    found: dict[str, Any] = {}
    for name in installed():
        found[name] = in_child(machine, "gpu_library_checks", "refused", name, environment=HIDDEN)
        for what in ("runtime", "builder"):
            found[name][what] = _started(machine, name, what)
    return found


def _started(machine: Machine, name: str, what: str) -> str:
    try:
        return str(in_child(machine, "gpu_library_checks", "start", name, what, environment=HIDDEN)["found"])
    except AssertionError as error:  # the process has ended
        return str(error)


def refused(_: Machine, name: str) -> dict[str, Any]:
    """Ask for an engine to run and for a builder without a GPU; return the errors."""
    from mtl_deploy.export.engines.bundle_engines import find_builder
    from mtl_deploy.export.options.engines import EngineOptions

    record = EngineRecord(name, "1.0", ("8.0",), None, None, "none", False, 1, "fp32.onnx", "")
    found: dict[str, Any] = {}
    try:
        record.require_fit()
    except NoGpuError as error:
        found["running"] = str(error)
    except BackendError as error:
        raise AssertionError(f"{name}: the GPU is not hidden ({error})") from error
    try:
        builder = find_builder(EngineOptions(library=name))
    except NoGpuError as error:
        found["building"] = str(error)
    else:
        assert not isinstance(builder, str)
        assert builder.library.is_rtx, f"{name} builds without a GPU"
        found["building"] = "ahead of time"
    assert "running" in found, f"{name} runs without a GPU"
    return found


def start(_: Machine, name: str, what: str) -> dict[str, Any]:
    """Start a runtime or a builder anyway; return what happened."""
    try:
        made = {"runtime": start_runtime, "builder": start_builder}[what](import_library(name), Messages())
    except BackendError as error:
        return {"found": str(error)}
    return {"found": f"a {type(made).__name__}"}


# layers by type


def layers_by_type(machine: Machine) -> dict[str, Any]:
    """Build the best graph's engine with a dynamic and with a static profile: both must report their layers by type.

    The inspector's output is kept as ``inspector-PROFILE.json``.
    """
    from mtl_deploy.export.engines.bundle_engines import inspect_plan
    from mtl_deploy.export.engines.layers import from_inspector, from_plan

    library = _library(machine)
    found = {}
    for name, profile in {"dynamic": (1, 4, 8), "static": (1, 1, 1)}.items():
        plan = build_plan(machine, library, profile)
        text = inspect_plan(library, plan)
        assert text is not None, f"{library.title} refuses the {name} plan that it has just built"
        (machine.out / f"inspector-{name}.json").write_text(text, encoding="utf-8")
        layers = from_plan(library, plan) or from_inspector(text)
        assert layers, f"nothing was recognised in inspector-{name}.json"
        found[name] = layers["layers"]
    return found


def build_plan(machine: Machine, library: Library, profile: tuple[int, int, int]) -> bytes:
    """Build an engine of the best precision's graph."""
    from mtl_deploy.export.engines.build import build
    from mtl_deploy.export.options.engines import EngineOptions

    content = (machine.bundle / _details(machine)["source"]).read_bytes()
    sources = _details(machine).get("settings", {}).get("tactic_sources")
    options = EngineOptions(library=library.name, tactic_sources=tuple(sources) if sources else None)
    return build(content, "the graph", library, options, profile).plan


# cuda-bindings


def both_bindings(machine: Machine, folders: list[Path]) -> dict[str, Any]:
    """Time calls by the GPU's clock with each version of cuda-bindings, in separate processes; deprecation warnings are errors.

    Args:
        machine: what to measure on.
        folders: unpacked wheels of cuda-bindings besides the installed one; the check is complete with one of the other major
            version.
    """
    found: dict[str, Any] = {}
    for folder in (None, *folders):
        environment = {} if folder is None else {"PYTHONPATH": f"{folder}:{':'.join(filter(None, sys.path))}"}
        options = ["-W", "error::DeprecationWarning:mtl_deploy", "-W", "error::DeprecationWarning:__main__"]
        one = in_child(machine, "gpu_library_checks", "timed", options=options, environment=environment)
        found[one.pop("cuda_bindings")] = one
    if len({version.split(".")[0] for version in found}) < 2:
        found["note"] = "only one major version of cuda-bindings: pass the folder of another with --bindings"
    return found


def timed(machine: Machine) -> dict[str, Any]:
    """Time a call's parts with the cuda-bindings that is imported."""
    import cuda.bindings

    from mtl_deploy.runtime.backends.tensorrt.timing import Timeline

    warnings.simplefilter("error", DeprecationWarning)  # warnings that C code raises name no module
    images = machine.images(1)
    with machine.load() as model:
        expected = model(images)
        line = Timeline(model.backend, images)
        timings = [line.measure(transfers=True, graph=line.graphs_off is None) for _ in range(50)]
        compare(line.results(), expected, "the timeline")
        line.close()
    parts = {part: float(np.median([getattr(one, part) for one in timings])) for part in ("h2d", "compute", "d2h")}
    assert all(value >= 0 for value in parts.values()), parts
    return {"cuda_bindings": cuda.bindings.__version__, "median_ms": parts, "graphs_off": line.graphs_off}


# engines that move between versions, and caches that are damaged


def compatible_twice(machine: Machine, options: list[str]) -> dict[str, Any]:
    """Build a version-compatible engine and load it twice; then build with a damaged timing cache, which must be refused."""
    library = _library(machine)
    if library.is_rtx:
        return {"skipped": "TensorRT-RTX has neither version-compatible engines nor timing caches"}
    target = machine.out / "compatible.mtl"
    command = ["mtl_deploy.export.cli", str(machine.bundle), "--precision", machine.best, *options]
    run_module(*command, "--version-compatible", "-o", str(target), "-f", "-q")
    found = in_child(Machine(target, machine.out), "gpu_library_checks", "load_twice")
    cache = machine.out / "damaged.cache"
    cache.write_bytes(b"no timing cache" * 100)
    again = [*command, "--timing-cache", str(cache), "-o", str(machine.out / "never.mtl"), "-f", "-q"]
    error = failure_of(lambda: run_module(*again))
    assert error is not None, "a damaged timing cache was accepted"
    assert "exit code 2" in error, error
    assert "refuses it" in error, error
    return found | {"damaged cache": error[-200:]}


def load_twice(machine: Machine) -> dict[str, Any]:
    """Load an engine twice at the same time, and once more: a version-compatible one contains its runtime."""
    assert _details(machine)["version_compatible"]
    images = machine.images(2)
    with machine.load() as first, machine.load() as second:
        expected = first(images)
        compare(second(images), expected, "the second")
    with machine.load() as third:
        compare(third(images), expected, "the third")
    return {"loaded": 3}


def _details(machine: Machine) -> dict[str, Any]:
    details: dict[str, Any] = dict(machine.engines[machine.best].details)
    return details


def _library(machine: Machine) -> Library:
    return import_library(_details(machine)["library"])
