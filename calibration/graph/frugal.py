"""ONNX Runtime for several graphs side by side: memory that a run took is given back when the run ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend


class FrugalBackend(OnnxRuntimeBackend):
    """Runs one graph on a CPU, without an arena.

    An arena keeps a run's largest memory for the next run. That is faster for one graph; of five graphs with large maps, all but
    the one that runs would hold memory that nobody uses.

    Args:
        content: the ``.onnx`` file; or a function that returns it, so that it is not kept while the graph runs.
        threads: of ONNX Runtime; None: one per core.
        where: the graph's name in errors.
        outputs: those that are asked for in each run, so that ONNX Runtime may leave the others out; None: all.
        spinning: whether idle threads wait by spinning, which takes processor time from whatever runs beside.

    Raises:
        BackendError: ONNX Runtime is missing or broken.
        BundleError: it cannot load the graph.
    """

    def __init__(
        self,
        content: bytes | Callable[[], bytes],
        *,
        threads: int | None,
        where: str = "graph",
        outputs: Sequence[str] | None = None,
        spinning: bool = True,
    ) -> None:
        read = content if callable(content) else lambda: content
        super().__init__(read, where=where, providers=["CPU"], threads=threads, outputs=outputs, spinning=spinning)

    def _options(self) -> Any:
        options = super()._options()
        options.enable_cpu_mem_arena = False
        return options
