"""The code's use of TensorRT against the real Python modules of its releases, as far as they go without a GPU.

    make test-slow

The modules are those of the package index: RTX and lean with their libraries, the others as bindings over functions that return
nothing (stubs.c). They are unpacked into ``.conformance/``, not installed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import pytest

from tests.conformance.modules import LEAN, RTX, TENSORRT, Module, ask, libcuda, parameters
from tests.conformance.uses import ROOT, TENSORRT_FILES, Use, attributes, own_names, tensorrt_uses

MODULES = parameters(TENSORRT)
OLD, FIRST_10, OTHER_10, NEW = {"8.6.1"}, {"10.0.1"}, {"10.3.0", "10.16.1"}, {"11.4.0", "RTX 1.7"}
ALL_BUT_RTX = OLD | FIRST_10 | OTHER_10 | {"11.4.0", "lean 11.4"}
WITHOUT: dict[str, set[str]] = {
    # networks are strongly typed in 11 and RTX; for 8.6 there are flags, and each layer is told its type
    "BuilderFlag.FP16": NEW,
    "BuilderFlag.INT8": NEW,
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": NEW,
    "ILayer.precision": NEW,
    "ILayer.set_output_type": NEW,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": OLD,
    "PreviewFeature.PROFILE_SHARING_0806": NEW,
    # later additions
    "ParserError.node_name": OLD,
    "ParserError.node_operator": OLD,
    "IProgressMonitor": OLD,
    "IBuilderConfig.progress_monitor": OLD,
    # memory of contexts: strategies since 10.0, sizes of 64 bits since 10.1, the old calls until 10
    "ExecutionContextAllocationStrategy": OLD,
    "ExecutionContextAllocationStrategy.USER_MANAGED": OLD,
    "ICudaEngine.create_execution_context_without_device_memory": NEW | {"lean 11.4"},
    "ICudaEngine.device_memory_size": NEW | {"lean 11.4"},
    "ICudaEngine.device_memory_size_v2": OLD | FIRST_10,
    "IExecutionContext.set_device_memory": OLD | FIRST_10,
    # TensorRT-RTX: building ahead of time, kernels that are compiled when an engine is loaded
    "ICudaEngine.create_runtime_config": OLD | FIRST_10 | {"10.3.0"},
    "IRuntimeConfig.set_execution_context_allocation_strategy": OLD | FIRST_10 | {"10.3.0"},
    **dict.fromkeys(
        (
            *("BuilderFlag.REQUIRE_USER_ALLOCATION", "ComputeCapability", "IBuilderConfig.num_compute_capabilities"),
            *("IBuilderConfig.set_compute_capability", "IRuntimeCache.deserialize", "IRuntimeCache.serialize"),
            *("DynamicShapesKernelSpecializationStrategy", "DynamicShapesKernelSpecializationStrategy.EAGER"),
            *("IRuntimeConfig.create_runtime_cache", "IRuntimeConfig.set_runtime_cache"),
            "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
            "IExecutionContext.is_stream_capturable",
        ),
        ALL_BUT_RTX,
    ),
}
"""The differences that the code handles: by name, the releases that lack it. Everything else exists in all."""
CALLED_OTHERWISE = {
    "ICudaEngine.create_execution_context": OLD
}  # it has no strategies, and another call in their place
RUNS = {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache", "TensorIOMode", "DataType"}
RUNS |= {"ExecutionContextAllocationStrategy", "DynamicShapesKernelSpecializationStrategy", "ILogger", "IProfiler"}
"""Classes and enums that a library without a builder has."""
OBJECTS = (
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILayer",
    "INetworkDefinition",
)
OBJECTS += (
    "IOptimizationProfile",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
)
OBJECTS += ("Runtime",)
_SIGNATURE = re.compile(r"^(?:\d+\. )?{}\((.*)\) -> .*$", re.MULTILINE)


@lru_cache(maxsize=8)
def names_of(module: Module) -> dict[str, Any]:
    found: dict[str, Any] = ask("names.py", module)
    return found


def lookup(names: dict[str, Any], use: Use) -> str | None:
    """Return the docstring of a name that the module has; None where it has none such."""
    if not use.owner:
        entry = names.get(use.name)
        return None if entry is None else str(entry["doc"])
    owner = names.get(use.owner, {"attributes": {}, "members": {}})
    if use.name in owner.get("members", {}):
        return ""
    found = owner.get("attributes", {}).get(use.name)
    return None if found is None else str(found)


def test_the_collection_sees_what_there_is_to_see() -> None:
    titles = {use.title for use in tensorrt_uses()}
    assert len(titles) > 100
    assert {
        *("BuilderFlag.TF32", "IBuilderConfig.set_timing_cache", "IExecutionContext.execute_async_v3"),
        *("ICudaEngine.get_tensor_profile_shape", "EngineInspector.execution_context", "ITimingCache.serialize"),
        *("OnnxParser.parse", "ParserError.node_name", "Runtime.deserialize_cuda_engine", "IProgressMonitor"),
    } <= titles


@pytest.mark.parametrize("module", MODULES)
def test_every_name_exists_in_every_release_but_for_the_known_differences(module: Module) -> None:
    names = names_of(module)
    uses = [use for use in tensorrt_uses() if not module.runs_only or use.title in RUNS or use.owner in RUNS]
    missing = {use.title: use.where for use in uses if lookup(names, use) is None}
    known = {title for title, releases in WITHOUT.items() if module.title in releases}
    if module.runs_only:
        known &= {use.title for use in uses}
    assert {title: place for title, place in missing.items() if title not in known} == {}
    assert known - set(missing) == set(), "these exist after all"


def test_no_other_file_works_with_the_library() -> None:
    found = set()
    for room in ("runtime", "export", "bench", "calibration"):
        for file in (ROOT / room).rglob("*.py"):
            if "openvino" in file.parts:  # which calls its own library a module too
                continue
            text = file.read_text(encoding="utf-8")
            if re.search(r"\btrt\.|library\.module|self\.module", text):
                found.add(file)
    assert found - set(TENSORRT_FILES) == set()


def test_what_the_code_asks_for_first_is_a_known_difference_and_the_other_way_round() -> None:
    titles = {use.title for use in tensorrt_uses()}
    asked = {use.title for use in tensorrt_uses() if use.asked}
    assert asked - set(WITHOUT) == set()
    assert set(WITHOUT) - titles == set(), "nothing uses these any more"


@pytest.mark.parametrize("module", MODULES)
def test_every_call_passes_what_the_signature_takes(module: Module) -> None:
    names, wrong, seen = names_of(module), {}, 0
    for use in tensorrt_uses():
        text = lookup(names, use)
        if use.positional is None or not text:
            continue
        signatures = [
            signature(match) for match in re.findall(_SIGNATURE.pattern.replace("{}", use.name), text, re.MULTILINE)
        ]
        seen += bool(signatures)
        if signatures and not any(takes(each, use) for each in signatures):
            wrong[use.title] = use.where
    known = {title for title, releases in CALLED_OTHERWISE.items() if module.title in releases}
    assert {title: place for title, place in wrong.items() if title not in known} == {}
    assert known - set(wrong) == set(), "these can be called so after all"
    assert seen > (10 if module.runs_only else 40)


def signature(text: str) -> list[tuple[str, bool]]:
    """Return a signature's parameters but ``self``: their names, and whether one must be passed."""
    depth, parts = 0, [""]
    for character in text:
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    named = [(part.partition(":")[0].strip(), "=" not in part) for part in parts if part.strip()]
    return [each for each in named if each[0] != "self"]


def takes(parameters: list[tuple[str, bool]], use: Use) -> bool:
    """Return whether a call fits a signature."""
    assert use.positional is not None
    rest = parameters[use.positional :]
    needed = {name for name, required in rest if required}
    return use.positional <= len(parameters) and needed <= set(use.keywords) <= {name for name, _ in rest}


def test_no_use_goes_uncollected() -> None:
    """An attribute that a class of TensorRT has is either collected as its, or one of the project's own."""
    names = names_of(RTX)
    real = {each for name in OBJECTS for each in names[name]["attributes"]}
    collected = {use.name for use in tensorrt_uses()}
    ours = own_names() | dir_of_builtins()
    found = {name: place for name, place in attributes().items() if name in real - collected - ours}
    assert found == {}


def dir_of_builtins() -> set[str]:
    import numpy as np

    return {name for kind in (str, bytes, list, dict, set, np.ndarray, np.dtype) for name in dir(kind)}


@pytest.mark.parametrize("module", MODULES)
def test_what_is_made_of_its_classes_works(module: Module) -> None:
    found: dict[str, Any] = ask("made.py", module)
    assert found["logger"] == [["INTERNAL_ERROR", "ERROR"], ["WARNING"], []]
    assert found["profiler"] == [["conv1", 0.5]]
    assert found["monitor"] == (None if module.title == "8.6.1" else [3, True, False])
    assert found["dims"] == [[1, -1, 3], [4], 2]
    assert found["iterates"] == [False, True]
    wide = {} if module.title == "8.6.1" else {"INT64": "<i8"}
    narrow = {"FLOAT": "<f4", "HALF": "<f2", "INT8": "|i1", "INT32": "<i4", "BOOL": "|b1", "UINT8": "|u1"}
    assert found["dtypes"] == narrow | wide
    flags = found["flags"]
    assert (flags["modes"], flags["severities"]) == ([1, 2], [1, 2, 3])
    if not module.runs_only:  # EXPLICIT_BATCH is flag 0 of 8.6, STRONGLY_TYPED flag 1 of 10 and flag 0 of 11 and RTX
        expected = {"8.6.1": (False, 1), "11.4.0": (True, 1), "RTX 1.7": (True, 1)}
        assert (flags["strongly_typed"], flags["network"]) == expected.get(module.title, (True, 2))
        assert flags["tactics"] > 0


@pytest.mark.parametrize("module", parameters((RTX, LEAN)))
@pytest.mark.parametrize("driver", [None, "12060", "11040"])
def test_a_driver_that_is_missing_or_too_old_does_not_end_the_process(module: Module, driver: str | None) -> None:
    environment = {} if driver is None else {"CUDA_SIM_VERSION": driver, "LD_LIBRARY_PATH": str(libcuda())}
    found = ask("made.py", module, environment=environment)["started"]
    if module is RTX:  # it starts, and refuses when a plan is loaded
        assert found["runtime"] == "Runtime"
        assert found["builder"] == "Builder"
        assert found["refuses"].startswith("Serialization")
    else:  # what it returns is not to be touched: doing so ends the process with a segmentation fault
        assert "does not start (API Usage Error (CUDA initialization failure with error: 35" in found["runtime"]


def test_the_first_loggers_end_is_not_the_librarys() -> None:
    """TensorRT keeps a pointer to the first logger and speaks through it whoever has closed a model since."""
    found = ask("logs.py", RTX)
    assert any("magicTag" in text for text in found["of the plan"])
    assert "Unable to load library: /nowhere.so" in found["of the registry"][0]
