"""The same graph with other floating-point types: FP16 widened to FP32, FP32 to float64. No weight changes its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .reading import messages

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
WIDENED: Mapping[int, int] = dict.fromkeys(HALVES, TensorProto.FLOAT)
DOUBLED: Mapping[int, int] = dict.fromkeys((*HALVES, TensorProto.FLOAT), TensorProto.DOUBLE)

_NAMES_A_TYPE = {"to", "dtype", "output_dtype"}  # attributes of Cast, RandomNormalLike, ...


def holds(model: onnx.ModelProto, types: tuple[int, ...]) -> bool:
    """Return whether a graph computes in one of these types anywhere."""
    for found in messages(model):
        if isinstance(found, TensorProto) and found.data_type in types:
            return True
        if isinstance(found, onnx.AttributeProto) and found.name in _NAMES_A_TYPE and found.i in types:
            return True
        if isinstance(found, onnx.TypeProto.Tensor) and found.elem_type in types:
            return True
    return False


def retyped(model: onnx.ModelProto, types: Mapping[int, int]) -> onnx.ModelProto:
    """Return a copy with other element types in tensors, casts, inputs and outputs.

    Args:
        model: not changed.
        types: which type each one becomes, :data:`WIDENED` or :data:`DOUBLED`. A wider type holds every value of a narrower
            one, so weights keep their values; what is computed from them is rounded less.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for found in list(messages(changed)):
        if isinstance(found, TensorProto):
            if found.data_type in types:
                _retype(found, types[found.data_type])
        elif isinstance(found, onnx.TypeProto.Tensor):
            found.elem_type = types.get(found.elem_type, found.elem_type)
        elif isinstance(found, onnx.AttributeProto) and found.name in _NAMES_A_TYPE and found.type == found.INT:
            found.i = types.get(found.i, found.i)
    return changed


def _retype(tensor: TensorProto, wanted: int) -> None:
    array: Any = numpy_helper.to_array(tensor)
    wide = np.asarray(array).astype(onnx.helper.tensor_dtype_to_np_dtype(wanted))
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
