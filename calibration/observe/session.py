"""ONNX Runtime for what a graph's inner tensors hold: on the processor, with no more optimization than leaves them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnxruntime

from mtl_deploy.calibration.graph.frugal import FrugalBackend


class ObservingSession(FrugalBackend):
    """Runs a graph whose outputs are its inner tensors, or what was computed of them.

    Where activations come and go as outputs, an arena would hold the largest batch twice.

    Args:
        model: the graph.
        outputs: those that are asked for in each run; the others are left out.
        threads: of ONNX Runtime; None: one per core.
        in_order: whether nodes run in the order written, which says when memory becomes free again. Otherwise ONNX Runtime's own
            order holds (ResNet-50, batch 8, reductions behind every tensor: 2.4 GB, in order 0.8).

    Raises:
        OptionError: less than one thread.
        BackendError: ONNX Runtime is missing or broken.
        BundleError: it cannot load the graph.
        DeviceMemoryError: memory ran out.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        outputs: Sequence[str],
        *,
        threads: int | None,
        in_order: bool = False,
    ) -> None:
        self._in_order = in_order
        super().__init__(model.SerializeToString, threads=threads, where="the observed graph", outputs=outputs)

    def _options(self) -> Any:
        options = super()._options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if self._in_order:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        return options
