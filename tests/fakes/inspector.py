"""TensorRT's engine inspector: what it says about layers in 8.6, 10 and 11, with the shapes of an execution context and without."""

from __future__ import annotations

import enum
import json
from typing import Any

from mtl_deploy.runtime.onnx_format.graph import read_graph

_TYPES = {"float32": ("FP32", "Float"), "float16": ("FP16", "Half"), "int8": ("Int8", "Int8")}
_WEIGHTED = ("Conv", "Gemm", "MatMul")
UNKNOWN = "N/A due to dynamic shapes"


class LayerInformationFormat(enum.Enum):
    """How the inspector answers."""

    ONELINE = 0
    JSON = 1


class Inspector:
    """The inspector of a simulated engine, made with detailed verbosity.

    Args:
        engine: it.
        major: TensorRT's version.
    """

    def __init__(self, engine: Any, major: int) -> None:
        self._engine, self._major = engine, major
        self.execution_context: Any = None

    def get_engine_information(self, form: LayerInformationFormat) -> str:
        assert form is LayerInformationFormat.JSON
        known = self._major < 10 or self._engine.batch_min == self._engine.batch_max
        known = known or (self.execution_context is not None and bool(self.execution_context.shapes))
        nodes = read_graph(self._engine.graph).nodes
        usual = "float16" if any("float16" in node.output_types for node in nodes) else "float32"
        layers = []
        for node in nodes:
            short, long = _TYPES.get(node.output_types[0] or usual, ("Int32", "Int32"))
            tensor = self._tensor(short if known else None)
            layer: dict[str, Any] = {"Name": node.name, "LayerType": "CaskConvolution"}
            layer |= {"Inputs": [tensor], "Outputs": [tensor], "Metadata": f"[ONNX Layer: {node.name}]"}
            if node.op_type in _WEIGHTED:
                layer["Weights"] = {"Type": long, "Count": 9}
            layers.append(layer)
        return json.dumps({"Layers": layers, "Bindings": []})

    def _tensor(self, kind: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {"Name": "x", "Location": "Device", "Dimensions": [1, 3, 8, 8] if kind else UNKNOWN}
        if self._major < 11:
            return found | {"Format/Datatype": f"Row major linear {kind}" if kind else UNKNOWN}
        return found | {"Format": "Row major linear" if kind else UNKNOWN, "Datatype": kind or UNKNOWN}
