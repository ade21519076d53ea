"""How many layers of an engine compute in each type, and how many bytes its weights take in each.

For TensorRT the engine inspector says so, which needs the GPU. TensorRT-RTX's plans contain their own program as text, so they
can be read anywhere. That form is not documented, so what is not recognised is left out, and only reports rely on it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mtl_deploy.runtime.backends.tensorrt.library import Library

_NAMES = {"float": "fp32", "half": "fp16", "bf16": "bf16", "int8": "int8", "fp8": "fp8", "fp4": "fp4", "int4": "int4"}

# TensorRT-RTX: "tensor={ ... const_payload_size=4 ... name="x" ... type=half }", "corrltn={ ... input={"x" "w" ... } ... }"
_TENSOR = re.compile(rb'\n  tensor=\{ ([^\n]*?)name="([^"\n]+)"([^\n]*?)type=(\w+) \}')
_PAYLOAD = re.compile(rb"const_payload_size=(\d+)")
_LAYER = re.compile(rb"\n  (corrltn|fully_connected)=\{[^\n]*?\binput=\{([^}\n]*)\}")

# TensorRT's inspector: "Half", "Int8 NC/32HW32", "Channel major FP16 format where channel % 2 == 0". A tensor has "Format/Datatype"
# up to TensorRT 10, "Format" and "Datatype" from 11 on.
_FORMATS = (
    (re.compile(r"int8", re.IGNORECASE), "int8"),
    (re.compile(r"\bfp8\b|float8", re.IGNORECASE), "fp8"),
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bf16"),
    (re.compile(r"half|fp16|float16", re.IGNORECASE), "fp16"),
    (re.compile(r"float|fp32", re.IGNORECASE), "fp32"),
)


def from_plan(library: Library, plan: bytes) -> dict[str, Any]:
    """Read a TensorRT-RTX plan: ``layers`` (convolutions and matrix products by the type that they read) and ``weight_bytes``.

    The result is empty for TensorRT, and if nothing is recognised.
    """
    if not library.is_rtx:
        return {}
    types: dict[bytes, str] = {}
    weights: Counter[str] = Counter()
    for before, name, after, kind in _TENSOR.findall(plan):
        precision = _NAMES.get(kind.decode(), kind.decode())
        types.setdefault(name, precision)
        payload = _PAYLOAD.search(before) or _PAYLOAD.search(after)
        if payload is not None:
            weights[precision] += int(payload[1])
    layers: Counter[str] = Counter()
    for _, operands in _LAYER.findall(plan):  # data, weights, ...: the data may be part of a tensor without an entry
        known = [types[name] for name in re.findall(rb'"([^"]+)"', operands)[:2] if name in types]
        layers.update(known[:1])
    if not layers or not weights:
        return {}
    return {"layers": _sorted(layers), "weight_bytes": _sorted(weights)}


def from_inspector(text: str) -> dict[str, Any]:
    """Read what TensorRT's engine inspector prints as JSON: ``layers``, counted by the type that they read.

    Args:
        text: ``get_engine_information(JSON)`` of an engine with detailed verbosity. The result is empty for anything else.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = Counter(kind for layer in layers if isinstance(layer, dict) if (kind := _reads(layer)) is not None)
    return {"layers": _sorted(found)} if found else {}


def _reads(layer: dict[str, Any]) -> str | None:
    if layer.get("LayerType") in ("Constant", "NoOp", "Signal", "Wait", "shape_call"):
        return None
    tensors = [tensor for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])] if isinstance(tensor, dict)]
    told = [str(tensor.get(key, "")) for tensor in tensors for key in ("Datatype", "Format/Datatype", "Format")]
    weights = layer.get("Weights")
    if isinstance(weights, dict):  # for tensors that are "N/A due to dynamic shapes"
        told.append(str(weights.get("Type", "")))
    return next((precision for text in told for pattern, precision in _FORMATS if pattern.search(text)), None)


def _sorted(counts: Iterable[str] | Counter[str]) -> dict[str, int]:
    return dict(sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0])))
