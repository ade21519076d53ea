"""OpenVINO itself: whether it is installed, its version, and what of it a process has once. The only importer of openvino."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.backends.failures import last_line
from mtl_deploy.runtime.backends.modes import check_mode
from mtl_deploy.runtime.errors import BackendError, OptionError

_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
ARITHMETIC = tuple(_CAPABILITY)
_OLDEST = 2024  # the first release whose Python names are used here
_LOCK = threading.Lock()
_STARTED: dict[int, OpenVino] = {}  # by process
INSTALL = "pip install 'mtl-deploy[openvino]'"


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO as it is loaded in this process.

    Attributes:
        module: ``openvino``.
        version: such as ``2026.4.1``.
        core: knows the devices and compiles for them.
        frontend: reads ONNX, and nothing else: ``Core.read_model`` tries every format that it knows on any bytes.
    """

    module: Any
    version: str
    core: Any
    frontend: Any

    @property
    def build(self) -> str:
        """The version with its build."""
        return str(self.module.__version__)


def is_installed() -> bool:
    """Return whether OpenVINO is installed; nothing is imported."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"] is not None
    spec = find_spec("openvino")
    return spec is not None and spec.origin is not None  # a folder of this name in the path is no package


def import_openvino() -> Any:
    """Return the module.

    Raises:
        BackendError: it is missing, broken or too old.
    """
    if not is_installed():
        raise BackendError(f"OpenVINO is not installed: {INSTALL}")
    try:
        import openvino

        usable = int(str(openvino.__version__).partition(".")[0]) >= _OLDEST and hasattr(openvino, "Core")
    except Exception as error:  # a broken installation may fail anywhere while it loads
        raise BackendError(
            f"OpenVINO is installed but broken ({last_line(error)}); install it again: {INSTALL}"
        ) from error
    if not usable:
        raise BackendError(f"OpenVINO {version_of(openvino)} is too old, {_OLDEST} or later is needed: {INSTALL}")
    return openvino


def installed_version() -> str | None:
    """Return OpenVINO's version, such as ``2026.4.1``, from what pip noted, or, where it came otherwise, from the module itself.

    None: it is missing or broken.
    """
    if not is_installed():
        return None
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        pass
    try:
        return version_of(import_openvino())
    except BackendError:
        return None


def version_of(module: Any) -> str:
    """Return ``2026.4.1`` for ``2026.4.1-22982-abcdef``."""
    return str(module.__version__).partition("-")[0]


def start() -> OpenVino:
    """Return what this process has of OpenVINO, made at the first call and never freed; a forked child gets its own.

    OpenVINO's plugin for processors gives the thread that it starts on a stack for signals, and takes the memory back when it is
    freed: on another thread, that would end the process at the next signal. In a child its destructors would wait for threads.

    Raises:
        BackendError: OpenVINO is missing, broken or too old, or has no device for processors.
    """
    with _LOCK:
        found = _STARTED.get(os.getpid())
        if found is None:
            found = _STARTED[os.getpid()] = _start()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))  # nor when the interpreter ends
        return found


def _start() -> OpenVino:
    module = import_openvino()
    version = version_of(module)
    try:
        from openvino.frontend import FrontEndManager

        core, frontend = module.Core(), FrontEndManager().load_by_framework("onnx")
        devices = core.available_devices
    except Exception as error:  # its exceptions have no base class of their own
        raise BackendError(f"OpenVINO {version} does not start ({last_line(error)}): {INSTALL}") from error
    if "CPU" not in devices or frontend is None:
        raise BackendError(f"OpenVINO {version} is installed without its CPU plugin or its ONNX reader: {INSTALL}")
    return OpenVino(module, version, core, frontend)


def check_device(device: object) -> None:
    """Check that a graph can run on a device: processors alone.

    Raises:
        OptionError: it is no device of OpenVINO's, but CUDA's number of a GPU.
        BackendError: it is another device, whether this machine has it or not.
    """
    if device is None:
        return
    if not isinstance(device, str):
        raise OptionError(f"device={device!r} is CUDA's number of a GPU, and OpenVINO runs on processors; leave it out")
    if device.upper() == "CPU":
        return
    here = ", ".join(start().core.available_devices)
    raise BackendError(
        f"device={device!r}: graphs run on OpenVINO's CPU device only, as nothing was verified on its others (OpenVINO has {here} "
        "here); leave it out, or on NVIDIA's GPUs use backend='tensorrt' or providers=['CUDA']"
    )


def compile_settings(library: OpenVino, threads: int | None, mode: str, arithmetic: str) -> dict[str, Any]:
    """Return the properties that graphs are compiled with.

    Args:
        library: OpenVINO.
        threads: for all calls together; None: one per core.
        mode: ``latency``: one call at a time on all threads; ``throughput``: several at once, on some threads each.
        arithmetic: ``f32``; or ``bf16`` or ``f16`` where the processor computes in it. What is INT8 in the graph stays INT8.

    Raises:
        OptionError: a word is unknown, or the number is less than 1.
        BackendError: the processor does not compute in it.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"threads={threads}: use 1 or more")
    check_mode(mode)
    if arithmetic not in ARITHMETIC:
        raise OptionError(f"arithmetic={arithmetic!r}: use one of {', '.join(ARITHMETIC)}")
    capable = {str(one).upper() for one in library.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    if _CAPABILITY[arithmetic] not in capable:
        raise BackendError(
            f"arithmetic={arithmetic!r}: this processor does not compute in it (OpenVINO names {', '.join(sorted(capable))}); "
            "leave it out"
        )
    known = library.core.get_property("CPU", "SUPPORTED_PROPERTIES")
    found: dict[str, Any] = {"PERFORMANCE_HINT": mode.upper(), "INFERENCE_PRECISION_HINT": arithmetic}
    if threads is not None:
        found["INFERENCE_NUM_THREADS"] = str(threads)
    optional = {
        "ENABLE_CPU_PINNING": "NO",  # two models, or two processes, would be pinned to the same cores
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # by default it rounds activations before INT8 weights, unasked
    }
    return found | {name: value for name, value in optional.items() if name in known}


def processor(library: OpenVino) -> Mapping[str, Any]:
    """Return what compiled graphs depend on besides the graph: OpenVINO's build and the processor with its instructions."""
    core = library.core
    return {
        "openvino": library.build,
        "machine": platform.machine(),
        "name": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
        "capabilities": sorted(str(one) for one in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "instructions": _instructions(),
    }


def _instructions() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    words = ("flags", "Features")  # x86's, ARM's
    found = next((line for line in lines if line.partition(":")[0].strip() in words), "")
    return sorted(found.partition(":")[2].split())
