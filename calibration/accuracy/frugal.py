"""ONNX Runtime for several graphs side by side: memory that a run took is given back when the run ends."""

from __future__ import annotations

from typing import Any

from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend


class FrugalBackend(OnnxRuntimeBackend):
    """Runs one graph on a CPU, without an arena.

    An arena keeps a run's largest memory for the next run. That is faster for one graph; of five graphs with large maps, all but
    the one that runs would hold memory that nobody uses.

    Args:
        content: the ``.onnx`` file.
        threads: of ONNX Runtime; None: one per core.

    Raises:
        BackendError: ONNX Runtime is missing or broken.
        BundleError: it cannot load the graph.
    """

    def __init__(self, content: bytes, *, threads: int | None) -> None:
        super().__init__(lambda: content, providers=["CPU"], threads=threads)

    def _options(self) -> Any:
        options = super()._options()
        options.enable_cpu_mem_arena = False
        return options
