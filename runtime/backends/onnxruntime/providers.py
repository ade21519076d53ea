"""ONNX Runtime's execution providers, by the names that a user writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mtl_deploy.runtime.cuda.gpu import find_gpu
from mtl_deploy.runtime.errors import BackendError, NoGpuError

_SUFFIX = "ExecutionProvider"
_OF_GPUS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_BUILDS = {
    "cuda": "; onnxruntime-gpu has CUDA, in the place of onnxruntime: pip install 'mtl-deploy[runtime-gpu]'",
    "openvino": "; onnxruntime-openvino has it, in the place of onnxruntime",
}
"""By provider, which build of ONNX Runtime has it."""


def known_providers(ort: Any, wanted: Sequence[str]) -> list[str]:
    """Return the full names of providers, which may be given in any case and without ``ExecutionProvider``.

    Raises:
        BackendError: one is not built in, or needs a GPU and there is none.
    """
    available = {name.lower(): name for name in ort.get_available_providers()}
    has = ", ".join(available.values())
    full = []
    for given in wanted:
        name = available.get(f"{given.lower().removesuffix(_SUFFIX.lower())}{_SUFFIX.lower()}")
        if name is None:
            build = _BUILDS.get(given.lower().removesuffix(_SUFFIX.lower()), "")
            raise BackendError(f"provider {given!r} is not available; this ONNX Runtime has {has}{build}")
        if name in _OF_GPUS:
            _require_gpu(name)
        full.append(name)
    if not full:
        raise BackendError(f"no provider is given; this ONNX Runtime has {has}")
    return full


def _require_gpu(provider: str) -> None:
    """Check that there is a GPU before ONNX Runtime looks for one: it writes coloured lines to standard error where it fails."""
    try:
        find_gpu()
    except NoGpuError as error:
        raise BackendError(f"provider {provider} did not start here: {error}; leave it out, or ask for CPU") from error


@contextmanager
def without_its_log(ort: Any, providers: Sequence[str]) -> Iterator[None]:
    """Keep ONNX Runtime from writing to standard error why a provider does not start: the caller is told by an exception.

    Its default logger is the process's, so it is quiet no longer than that, and only where a provider other than the CPU is tried.
    """
    if list(providers) == ["CPUExecutionProvider"]:
        yield
        return
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # its default
