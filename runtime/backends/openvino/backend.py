"""OpenVINO behind the backend protocol: runs graphs on processors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.backends.failures import is_memory, last_line
from mtl_deploy.runtime.backends.modes import calls_at_once
from mtl_deploy.runtime.cuda.arrays import is_on_device
from mtl_deploy.runtime.errors import BackendError, BundleError, DeviceMemoryError, MtlError, OptionError, RunError
from mtl_deploy.runtime.onnx_format.borders import read_borders
from mtl_deploy.runtime.onnx_format.cut import cut
from mtl_deploy.runtime.onnx_format.graph import OnnxValue
from mtl_deploy.runtime.signals import handlers_error

from .cache import CompiledCache
from .compiled import CLOSED
from .graph import Graph
from .library import compile_settings, processor, start

_DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64")


class OpenVinoBackend:
    """Runs one ONNX graph. Safe to call from several threads: each call has an infer request to itself, from a pool.

    As with ONNX Runtime, each subset of outputs gets a graph of its own, cut and compiled when it is first needed. Each graph is
    compiled for the shapes of images that come.

    Args:
        read: returns the ``.onnx`` file's bytes; called again for each subset of outputs, and for further shapes.
        where: how errors call the file.
        threads: for all calls together; None: one per physical core.
        outputs: the only outputs that will ever be needed; None: all. The others are left out from the start.
        mode: ``latency`` or ``throughput``, see :func:`~mtl_deploy.runtime.backends.openvino.library.compile_settings`.
        arithmetic: ``f32``, ``bf16`` or ``f16``, see there.
        requests: infer requests of each compiled graph: further calls wait.
        cache: folder of compiled graphs; None: none.

    Raises:
        BackendError: OpenVINO is missing or broken, or cannot run the graph.
        BundleError: the bytes are no graph.
        OptionError: an option is out of range.
        DeviceMemoryError: there is not enough memory.
    """

    name = "openvino"

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        where: str = "graph",
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
        mode: str = "latency",
        arithmetic: str = "f32",
        requests: int = 4,
        cache: Path | None = None,
    ) -> None:
        if requests < 1:
            raise OptionError(f"contexts={requests}: use 1 or more")
        self._library = library = start()
        self._read, self._where, self._requests = read, where, requests
        self._settings = compile_settings(library, threads, mode, arithmetic)
        self._cache = CompiledCache(cache, processor(library) if cache is not None else {})
        content = read() if outputs is None else cut(read(), outputs)
        borders = read_borders(content, where)
        self.inputs = tuple(_spec(value, where) for value in borders.inputs)
        self.outputs = tuple(_spec(value, where) for value in borders.outputs)
        self.metadata = borders.metadata
        if len(self.inputs) != 1 or not self.outputs:
            raise BundleError(f"{where}: a graph has one input and one output per task; export it again")
        self._all = frozenset(spec.name for spec in self.outputs)
        self._lock = threading.Lock()
        self._graphs: dict[frozenset[str], Graph] = {}
        graph = self._graph(self._all, whole=outputs is None)
        self._graphs[self._all] = graph
        compiled = graph.warm()
        words = [f"OpenVINO {library.version}, CPU"]
        if mode == "throughput":
            words.append(calls_at_once(compiled.best_requests))
        self.details = ", ".join(words + ([] if arithmetic == "f32" else [arithmetic]))

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
                "OpenVINO takes only arrays in host memory here; CUDA streams and arrays on the GPU need an engine "
                "(backend='tensorrt')"
            )
        graph = self._graph_for(frozenset(outputs))
        try:
            found = graph.run(inputs[self.inputs[0].name], into or {})
        except MtlError:
            raise
        except Exception as error:  # its exceptions have no base class of their own
            if (raised := handlers_error(error)) is not None:
                raise raised from raised.__cause__
            if is_memory(error):
                raise DeviceMemoryError(
                    f"OpenVINO: out of memory ({last_line(error)}); free some, or use smaller batches or images"
                ) from error
            raise RunError(f"OpenVINO failed: {last_line(error)}") from error
        return {name: found[name] for name in outputs}

    def warm(self, outputs: Sequence[str]) -> None:
        """Compile the graph for these outputs now, so that the first :meth:`run` that asks for them need not.

        Raises:
            RunError: the backend is closed.
            BackendError: OpenVINO cannot compile it; :class:`DeviceMemoryError`: there is not enough memory.
        """
        self._graph_for(frozenset(outputs)).warm()

    def close(self) -> None:
        """Free the compiled graphs, once running calls have ended."""
        with self._lock:
            graphs, self._graphs = self._graphs, {}
        for graph in graphs.values():
            graph.close()

    def _graph_for(self, outputs: frozenset[str]) -> Graph:
        found = self._graphs.get(outputs)
        if found is not None:
            return found
        with self._lock:
            if not self._graphs:
                raise RunError(CLOSED)
            if outputs not in self._graphs:
                self._graphs[outputs] = self._graph(outputs, whole=False)
            return self._graphs[outputs]

    def _graph(self, outputs: frozenset[str], *, whole: bool) -> Graph:
        specs = [spec for spec in self.outputs if spec.name in outputs]
        names = [spec.name for spec in specs]

        def content() -> bytes:
            return self._read() if whole else cut(self._read(), names)

        return Graph(
            self._library, content, self._where, self.inputs[0], specs, self._settings, self._cache, self._requests
        )


def _spec(value: OnnxValue, where: str) -> TensorSpec:
    if value.element_type not in _DTYPES:
        raise BundleError(
            f"{where}: {value.name!r} is of type {value.element_type}; the runtime supports {', '.join(_DTYPES)}: export it again"
        )
    shape = tuple(size if isinstance(size, int) else None for size in value.shape or ())
    return TensorSpec(value.name, np.dtype(value.element_type), shape)
