"""Whether ONNX Runtime's own optimizer changes what a graph computes, and which part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SUSPECTS = (
    *("Pad_Fusion", "ConstantFolding", "ReshapeFusion", "TransposeOptimizer", "NchwcTransformer", "FuseReluClip"),
    *("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "ConvActivationFusion", "MatMulAddFusion", "MatMulBNFusion"),
    *("GemmActivationFusion", "LayerNormFusion", "GeluFusion", "QDQSelectorActionTransformer"),
)

Outputs = Sequence[npt.NDArray[np.floating[Any]]]


def culprit(content: bytes, inputs: Mapping[str, npt.NDArray[Any]], right: Callable[[Outputs], bool]) -> str | None:
    """Return which part of ONNX Runtime's optimizer makes a graph compute something else; None if it is not the optimizer.

    Args:
        content: the ``.onnx`` file.
        inputs: of the graph.
        right: says whether outputs, in the graph's order, are what they should be.

    Returns:
        the name of the optimizer without which they are right; "" if several do it together.
    """
    if not right(_run(content, inputs, optimized=False)):
        return None
    return next((name for name in _SUSPECTS if right(_run(content, inputs, without=name))), "")


def _run(content: bytes, inputs: Mapping[str, Any], *, optimized: bool = True, without: str | None = None) -> Outputs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        content,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[without] if without else None,
    )
    return [np.asarray(value, np.float32) for value in session.run(None, dict(inputs))]
