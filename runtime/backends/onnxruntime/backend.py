"""ONNX Runtime behind the backend protocol. The only importer of onnxruntime in the runtime."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.arrays import Array, TensorSpec
from mtl_deploy.runtime.backends.failures import first_line, is_memory
from mtl_deploy.runtime.backends.modes import calls_at_once, check_mode, usable_cores
from mtl_deploy.runtime.cuda.arrays import is_on_device
from mtl_deploy.runtime.cuda.gpu import has_gpu
from mtl_deploy.runtime.errors import BackendError, BundleError, DeviceMemoryError, OptionError, RunError
from mtl_deploy.runtime.onnx_format.cut import cut
from mtl_deploy.runtime.signals import handlers_error

from .providers import known_providers, without_its_log

if TYPE_CHECKING:
    import onnxruntime

_INSTALL = "pip install 'mtl-deploy[runtime]' (CPU) or 'mtl-deploy[runtime-gpu]' (CUDA)"
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_DTYPES: dict[str, np.dtype[np.generic]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}


class OnnxRuntimeBackend:
    """Runs one ONNX graph. Safe to call from several threads: a session's ``run`` is.

    ONNX Runtime computes all outputs of a graph, whichever the call asks for. So each subset of outputs gets a graph and a session
    of its own, made when it is first needed.

    Args:
        read: returns the ``.onnx`` file's bytes; called again for each subset of outputs.
        where: how errors call the file.
        providers: ONNX Runtime's execution providers, in order of preference; None: :func:`default_providers`.
        threads: threads inside an operator; None: one per physical core.
        outputs: the only outputs that will ever be needed; None: all. The others are left out from the start.
        spinning: whether idle threads wait by spinning: faster for one model, but takes processor time from others.
        mode: ``latency``: each call on all threads; ``throughput``: as many calls at once as there are threads, each on its
            caller's own thread, and further calls wait. One session serves them all, with one copy of the weights.
        rests: spinning ends with each call, so that what runs next in this process has the cores to itself.

    Raises:
        OptionError: an option is out of range, or the provider is none of a processor and ``mode`` is ``throughput``.
        BackendError: onnxruntime is missing or broken, or a provider is not available.
        BundleError: the bytes are not a graph that it can load.
    """

    name = "onnxruntime"

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        where: str = "graph",
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
        spinning: bool = True,
        mode: str = "latency",
        rests: bool = False,
    ) -> None:
        ort = _import()
        check_mode(mode)
        if threads is not None and threads < 1:
            raise OptionError(f"threads={threads}: use 1 or more")
        self._ort = ort
        self._read = read
        self._where = where
        self._providers = default_providers() if providers is None else known_providers(ort, providers)
        self._threads = threads
        self._spinning = spinning
        self._rests = rests
        self._calls: AbstractContextManager[Any] = nullcontext()
        words = [f"ONNX Runtime {ort.__version__}", self._providers[0]]
        if mode == "throughput":
            if not self._providers[0].startswith("CPU"):
                raise OptionError(
                    f"mode={mode!r} is for processors, and {self._providers[0]} is asked for; leave it out"
                )
            count = usable_cores() if threads is None else threads
            self._threads, self._calls = 1, threading.BoundedSemaphore(count)
            words.append(calls_at_once(count))
        self._lock = threading.Lock()
        self._unfused = False
        session = self._load(outputs)
        self.details = ", ".join([*words, *(["INT8 layers not fused"] if self._unfused else [])])
        self.inputs = tuple(_spec(value, where) for value in session.get_inputs())
        self.outputs = tuple(_spec(value, where) for value in session.get_outputs())
        self.metadata = _metadata(session, where)
        self._all = frozenset(spec.name for spec in self.outputs)
        self._sessions: dict[frozenset[str], onnxruntime.InferenceSession] = {self._all: session}

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once; see :meth:`~mtl_deploy.runtime.backends.base.Backend.run`. Inputs and outputs are in host memory."""
        if (
            stream is not None
            or on_device
            or any(is_on_device(value) for value in (*inputs.values(), *(into or {}).values()))
        ):
            raise BackendError(
                "ONNX Runtime takes only arrays in host memory here; CUDA streams and arrays on the GPU need an engine "
                "(backend='tensorrt')"
            )
        session = self._session_for(frozenset(outputs))
        with _failures(), self._calls:
            if into:
                values = _run_bound(session, inputs, outputs, into)
                return {name: into[name] if name in into else values[name].numpy() for name in outputs}
            return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    def run_bound(
        self, inputs: Mapping[str, Any], outputs: Sequence[str], into: Mapping[str, Array], kept: Collection[str]
    ) -> dict[str, Any]:
        """Run once, with what goes in and comes out bound to memory, so that nothing is copied on the way to another session.

        Args:
            inputs: arrays in host memory, or :class:`onnxruntime.OrtValue` of another session on the same device, by name.
            outputs: the outputs to return.
            into: arrays to write outputs to, by name.
            kept: the outputs that stay on the session's device; the others come to host memory.

        Returns:
            an :class:`onnxruntime.OrtValue` for each output.

        Raises:
            RunError: the library failed; :class:`DeviceMemoryError`: there is no memory left.
        """
        session = self._session_for(frozenset(outputs))
        device = "cuda" if self._providers[0].startswith(("CUDA", "Tensorrt")) else "cpu"
        with _failures(), self._calls:
            return _run_bound(session, inputs, outputs, into, dict.fromkeys(kept, device))

    def warm(self, outputs: Sequence[str]) -> None:
        """Make the session for these outputs now, so that the first :meth:`run` that asks for them need not.

        Raises:
            RunError: the backend is closed.
            BundleError: ONNX Runtime cannot load the graph; :class:`DeviceMemoryError`: there is no memory for another session.
        """
        self._session_for(frozenset(outputs))

    def close(self) -> None:
        """Free the sessions."""
        self._sessions = {}

    def _session_for(self, outputs: frozenset[str]) -> onnxruntime.InferenceSession:
        sessions = self._sessions
        if not sessions:
            raise RunError("the model is closed; load it again")
        session = sessions.get(outputs)
        if session is None:
            with self._lock:
                session = sessions.get(outputs) or self._load(list(outputs))
                sessions[outputs] = session
        return session

    def _load(self, outputs: Sequence[str] | None) -> onnxruntime.InferenceSession:
        ort = self._ort
        content = self._read() if outputs is None else cut(self._read(), outputs)
        try:
            with without_its_log(ort, self._providers):
                session = self._session(content)
        except Exception as error:  # its exceptions have no common base class
            if (raised := handlers_error(error)) is not None:
                raise raised from raised.__cause__
            if is_memory(error):
                raise DeviceMemoryError(
                    f"{self._where}: out of memory ({first_line(error)}); the file is not to blame: free some memory and load it "
                    "again"
                ) from error
            raise BundleError(
                f"{self._where}: ONNX Runtime {ort.__version__} cannot load it ({first_line(error)}); copy the file again, or "
                "export it again"
            ) from error
        if session.get_providers()[0] != self._providers[0]:  # it falls back with no more than a line in the log
            raise BackendError(
                f"provider {self._providers[0]} did not start here (no device, or libraries that do not fit it; mtl-doctor shows "
                "both); ask for another, or see https://onnxruntime.ai/docs/execution-providers for what it needs"
            )
        return session

    def _session(self, content: bytes) -> onnxruntime.InferenceSession:
        """Make a session; where ONNX Runtime makes a graph invalid by fusing its INT8 layers, one that does not fuse them.

        It fuses operators between FP16 scales into INT8 ones that take FP32 scales alone (1.31), wherever it has FP16 kernels: on
        ARM processors with FP16 arithmetic, and everywhere for operators of every type, such as Concat.
        """
        ort, options = self._ort, self._options()
        try:
            return ort.InferenceSession(content, options, providers=self._providers)
        except Exception as error:
            if type(error).__name__ != "InvalidGraph" or b"DequantizeLinear" not in content:
                raise
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            session = ort.InferenceSession(content, options, providers=self._providers)
        self._unfused = True
        return session

    def _options(self) -> onnxruntime.SessionOptions:
        """Return the options that every session is made with."""
        options: onnxruntime.SessionOptions = self._ort.SessionOptions()
        options.log_severity_level = (
            4  # errors come as exceptions in our own words; its log would print names from the file
        )
        options.add_session_config_entry(
            "session.load_model_format", "ONNX"
        )  # never its own format, whatever the bytes look like
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if not self._spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._rests:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        return options


def _run_bound(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    into: Mapping[str, Array],
    devices: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run with the caller's buffers bound; the other outputs get new memory, in host memory where ``devices`` does not say else."""
    binding = session.io_binding()
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, value)
        else:
            binding.bind_ortvalue_input(name, value)
    for name in outputs:
        if (buffer := into.get(name)) is not None:
            binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        else:
            binding.bind_output(name, devices.get(name, "cpu"))
    session.run_with_iobinding(binding)
    return dict(zip(outputs, binding.get_outputs(), strict=True))


@contextmanager
def _failures() -> Iterator[None]:
    """Raise what ONNX Runtime raises while it runs as errors of this package; its own have no common base class."""
    try:
        yield
    except Exception as error:
        if (raised := handlers_error(error)) is not None:
            raise raised from raised.__cause__
        if is_memory(error):
            raise DeviceMemoryError(
                f"ONNX Runtime: out of memory ({first_line(error)}); free some, or use smaller batches or images"
            ) from error
        raise RunError(f"ONNX Runtime failed: {first_line(error)}") from error


def installed_version() -> str | None:
    """Return ONNX Runtime's version, such as ``1.31.0``, from what pip noted, or, of other builds, from the module itself.

    None: it is missing or broken.
    """
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            return version(name)
    try:
        return str(_import().__version__)
    except BackendError:
        return None


def available_providers() -> list[str]:
    """Return the execution providers that the installed ONNX Runtime was built with, in its order of preference.

    Raises:
        BackendError: onnxruntime is missing or broken.
    """
    return list(_import().get_available_providers())


def default_providers() -> list[str]:
    """Return CUDA where ONNX Runtime has it and the machine has a CUDA device, followed by the CPU.

    Raises:
        BackendError: onnxruntime is missing or broken.
    """
    available = available_providers()
    cuda = ["CUDAExecutionProvider"] if "CUDAExecutionProvider" in available and has_gpu() else []
    return [*cuda, "CPUExecutionProvider"]


@lru_cache(maxsize=1)
def _import() -> Any:
    installed = [name for name in _DISTRIBUTIONS if _installed(name)]
    if len(installed) == 2:
        warnings.warn(
            "onnxruntime and onnxruntime-gpu are both installed; they share one import name and overwrite each other's files. "
            "Remove both (pip uninstall --yes onnxruntime onnxruntime-gpu), then install the one that you want",
            RuntimeWarning,
            stacklevel=2,
        )
    try:
        import onnxruntime as ort

        ort.InferenceSession  # noqa: B018 - missing where one of the two distributions was removed
    except (ImportError, AttributeError) as error:
        if not installed:
            raise BackendError(f"ONNX Runtime is not installed: {_INSTALL}") from error
        raise BackendError(
            f"ONNX Runtime is installed but broken ({first_line(error)}): pip uninstall --yes onnxruntime onnxruntime-gpu, "
            "then install the one that you want"
        ) from error
    return ort


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _spec(value: Any, where: str) -> TensorSpec:
    dtype = _DTYPES.get(value.type)
    if dtype is None:
        raise BundleError(
            f"{where}: {value.name!r} is of type {value.type}; the runtime supports {', '.join(_DTYPES)}: export it again"
        )
    shape = tuple(size if isinstance(size, int) else None for size in value.shape or ())
    return TensorSpec(value.name, dtype, shape)


def _metadata(session: onnxruntime.InferenceSession, where: str) -> Mapping[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: its metadata is not UTF-8 text ({error.reason}); export it again") from error
