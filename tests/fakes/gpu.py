"""The simulated machine of the runtime's tests: driver, TensorRT, and what bundles with engines for it hold."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.backends.tensorrt import library as tensorrt_library
from mtl_deploy.runtime.backends.tensorrt import log as tensorrt_log
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, Manifest, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.cuda import calls as cuda_calls
from mtl_deploy.runtime.cuda import context as cuda_context
from mtl_deploy.runtime.cuda import gpu

BATCH_MAX = 8
EngineBundle = Callable[..., Path]


@dataclass
class Simulation:
    """The simulated machine.

    Attributes:
        cuda: its driver, as the runtime works with it.
        libcuda: its driver, as the runtime asks it what there is.
        monkeypatch: of the test.
        folder: for what wheels leave behind.
        may_leak: whether the test leaves something behind on purpose.
    """

    cuda: Any
    libcuda: Any
    monkeypatch: pytest.MonkeyPatch
    folder: Path
    may_leak: bool = False

    @contextmanager
    def as_torch(self) -> Iterator[None]:
        """Have the primary context retained and current, as in a program that uses PyTorch."""
        driver = self.cuda
        context = driver.cuDevicePrimaryCtxRetain(0)[1]
        driver.cuCtxPushCurrent(context)
        try:
            yield
        finally:
            driver.cuCtxPopCurrent()
            driver.cuDevicePrimaryCtxRelease(0)

    def install(self, version: str = "10.3.0", *, rtx: bool = False) -> Any:
        """Install a TensorRT, or TensorRT-RTX."""
        from tests.fakes.tensorrt import make_tensorrt

        module = make_tensorrt(self.cuda, version, rtx=rtx)
        self.monkeypatch.setitem(sys.modules, module.__name__, module)
        tensorrt_library.import_library.cache_clear()
        return module

    def replace(self, name: str, function: Callable[..., Any]) -> None:
        """Put a function in the place of one of the driver's."""
        self.monkeypatch.setattr(self.cuda, name, function)
        vars(cuda_calls.driver()).pop(name, None)

    def install_wheel(self, project: str, *requires: str, version: str = "10.3.0") -> None:
        """Leave the metadata that pip does when it installs a wheel."""
        folder = self.folder / "site-packages" / f"{project}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
        lines += [f"Requires-Dist: {each}" for each in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(folder.parent))


def clear_caches() -> None:
    cuda_calls.driver.cache_clear()
    tensorrt_log._loggers.clear()
    for state in (cuda_context._primaries, cuda_context._holds, cuda_context._lost):
        state.clear()
    gpu.find_gpu.cache_clear()
    tensorrt_library.import_library.cache_clear()


def record_of(source: str = "fp16.onnx", content: bytes = b"", **changes: Any) -> EngineRecord:
    """Return the record of an engine that fits the simulated machine, but for the changes."""
    record = EngineRecord(
        library="tensorrt",
        version="10.3.0",
        compute_capabilities=("8.7",),
        gpu="Simulated GPU",
        driver="13.0",
        hardware_compatibility="none",
        version_compatible=False,
        batch_opt=1,
        source=source,
        source_sha256=hashlib.sha256(content).hexdigest(),
        rest={"seconds": 1.5},
    )
    return replace(record, **changes)


def engine_artifact(graph: Artifact, plan: bytes, batch_max: int, record: EngineRecord) -> Artifact:
    return replace(
        graph,
        path=str(Path(graph.path).with_suffix(".trt")),
        backend="tensorrt",
        batch_min=1,
        batch_max=batch_max,
        opset=None,
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        details=record.to_details(),
    )


def change_artifacts(folder: Path, keep: Callable[[Artifact], bool]) -> Manifest:
    """Leave only some artifacts in a bundle's manifest."""
    manifest = open_bundle(folder).manifest
    changed = replace(manifest, artifacts=tuple(artifact for artifact in manifest.artifacts if keep(artifact)))
    write_manifest(folder, changed)
    return changed


RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


def expected(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the tiny bundle computes of images."""
    colour = images.mean((1, 2)) / 255
    race = np.exp(6 * colour)
    return {
        "age": 100 * colour[:, :1] + 1,
        "gender": 1 / (1 + np.exp(-4 * (colour[:, 1:2] - colour[:, 2:]))),
        "race": race / race.sum(1, keepdims=True),
    }


def check(found: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Assert that outputs are those of images."""
    truth = expected(images)
    assert found
    for task, values in found.items():
        np.testing.assert_allclose(values, truth[task], rtol=1e-4)
        assert values.dtype == np.float32


class GpuArray:
    """An array that another library has on the GPU; a stream of its own fills it.

    Args:
        driver: the simulated one; a context is current.
        array: the content.
        stream: that fills it; None: it is filled already.
        offset: bytes between the allocation and the array.
    """

    def __init__(self, driver: Any, array: np.ndarray, *, stream: int | None = None, offset: int = 0) -> None:
        self._driver, self.stream = driver, stream
        self._base = driver.allocate(array.nbytes + offset)
        self.address, self.shape, self.dtype = self._base + offset, array.shape, array.dtype
        content = array.tobytes()
        if stream is None:
            ctypes.memmove(self.address, content, len(content))
        else:
            driver.enqueue(stream, lambda: ctypes.memmove(self.address, content, len(content)))

    def read(self) -> np.ndarray:
        """Return what the memory holds now; nothing is waited for."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.frombuffer(ctypes.string_at(self.address, size), self.dtype).reshape(self.shape)

    def free(self) -> None:
        self._driver.cuMemFree(self._base)

    def interface(self, **changes: Any) -> Any:
        """Return an object with the array interface, version 3; a change to None leaves a field out."""
        fields: dict[str, Any] = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False)}
        fields |= {"strides": None, "version": 3, "stream": self.stream} | changes
        return SimpleNamespace(shape=self.shape, __cuda_array_interface__=fields)

    def dlpack(self, **changes: Any) -> DlPackArray:
        return DlPackArray(self, changes)


class DlTensor(ctypes.Structure):
    """``DLManagedTensor`` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


class DlPackArray:
    """The same array by DLPack alone; it orders the consumer's stream behind its own, as PyTorch does."""

    def __init__(self, array: GpuArray, changes: dict[str, Any]) -> None:
        self._array, self.shape, self.asked = array, array.shape, []
        self.device, self.number = changes.pop("device", 2), changes.pop("number", 0)
        sizes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        strides = changes.pop("strides", None)
        self._keep = [sizes, (ctypes.c_int64 * len(self.shape))(*strides) if strides else None]
        code = {"i": 0, "u": 1, "f": 2}[array.dtype.kind]
        fields = {"code": code, "bits": 8 * array.dtype.itemsize, "lanes": 1, "byte_offset": 0} | changes
        data = array.address - fields["byte_offset"]
        self._tensor = DlTensor(
            data=data, device_type=self.device, device_id=self.number, ndim=len(self.shape), shape=sizes, **fields
        )
        if strides:
            self._tensor.strides = self._keep[1]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, self.number

    def __dlpack__(self, stream: Any = None) -> Any:
        assert stream is not None
        assert stream != 0, "ambiguous, the standard says"
        self.asked.append(stream)
        array = self._array
        if array.stream is not None:
            driver = array._driver
            event = driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)[1]
            assert driver.cuEventRecord(event, array.stream)[0] == 0
            assert driver.cuStreamWaitEvent(stream, event, 0)[0] == 0
            driver.cuEventDestroy(event)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._tensor), b"dltensor", None)
