"""Wrong graphs: each is a right one with one mistake that an exporter, a converter or a careless hand could make."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Mutant = tuple[str, ModelProto]


def mutants(model: ModelProto) -> Iterator[Mutant]:
    """Yield mistakes by name: in weights, biases, channels, the image's preparation, attributes and operators."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights:
            yield from _of_weights(model, node)
    for name, tensor in weights.items():
        floats = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        if name.startswith(("preprocess.", "decode.")) and floats and not name.endswith(".scales"):
            yield from _of_borders(model, name)
    for node in model.graph.node:
        yield from _of_operators(model, node)


def _of_weights(model: ModelProto, node: NodeProto) -> Iterator[Mutant]:
    kernel = node.input[1]
    out = 1 if node.op_type in ("ConvTranspose", "MatMul") else 0

    def one(factor: float) -> Callable[[np.ndarray], np.ndarray]:
        def change(weight: np.ndarray) -> np.ndarray:
            weight.flat[int(np.argmax(np.abs(weight.astype(np.float32))))] *= factor
            return weight

        return change

    yield f"{node.name}: one weight 1 % larger", _with(model, kernel, one(1.01))
    yield f"{node.name}: one weight 5 % larger", _with(model, kernel, one(1.05))
    yield f"{node.name}: kernel 1 % larger", _with(model, kernel, lambda weight: weight * weight.dtype.type(1.01))
    yield f"{node.name}: kernel 3 % smaller", _with(model, kernel, lambda weight: weight * weight.dtype.type(0.97))
    for axis, word in ((out, "output"), (1 - out, "input")):
        size = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == kernel)).shape[axis]
        if size > 1:
            yield f"{node.name}: two {word} channels swapped", _with(model, kernel, lambda w, a=axis: _swapped(w, a))
    if len(node.input) > 2 and node.input[2]:
        yield f"{node.name}: bias dropped", _with(model, node.input[2], lambda bias: bias * 0)


def _of_borders(model: ModelProto, name: str) -> Iterator[Mutant]:
    yield f"{name}: 256 in place of 255", _with(model, name, lambda array: array * array.dtype.type(255 / 256))

    def one(array: np.ndarray) -> np.ndarray:
        array.flat[0] *= array.dtype.type(1.01)
        return array

    yield f"{name}: one value off by 1 %", _with(model, name, one)


def _of_operators(model: ModelProto, node: NodeProto) -> Iterator[Mutant]:
    if node.op_type == "Resize":
        for mode in ("asymmetric", "align_corners"):
            yield f"{node.name}: {mode}", _with_attribute(model, node, coordinate_transformation_mode=mode)
        yield f"{node.name}: nearest", _with_attribute(model, node, mode="nearest")
        yield f"{node.name}: cubic", _with_attribute(model, node, mode="cubic")
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            yield f"{node.name}: epsilon tenfold", _with_attribute(model, node, epsilon=attribute.f * 10)
            yield f"{node.name}: epsilon 1e-3", _with_attribute(model, node, epsilon=1e-3)
        if attribute.name == "count_include_pad":
            yield f"{node.name}: pad counted", _with_attribute(model, node, count_include_pad=1 - attribute.i)
    others = {"Relu": ("Softplus", "Identity"), "MaxPool": ("AveragePool",), "GlobalAveragePool": ("GlobalMaxPool",)}
    for other in others.get(node.op_type, ()):
        yield f"{node.name}: {other}", _with_operator(model, node, other)
    if node.op_type == "Clip":
        yield f"{node.name}: no limits", _with_operator(model, node, "Identity", inputs=1)
    if node.op_type == "Add" and not node.name.startswith(("preprocess", "decode")):
        yield f"{node.name}: one side lost", _with_operator(model, node, "Identity", inputs=1)


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def _with(model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> ModelProto:
    copied = _copy(model)
    tensor: TensorProto = next(tensor for tensor in copied.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    changed = np.ascontiguousarray(change(array)).reshape(array.shape)
    tensor.CopyFrom(numpy_helper.from_array(changed, name))
    return copied


def _swapped(array: np.ndarray, axis: int) -> np.ndarray:
    order = np.arange(array.shape[axis])
    order[[0, 1]] = order[[1, 0]]
    return array.take(order, axis)


def _with_attribute(model: ModelProto, node: NodeProto, **values: object) -> ModelProto:
    copied = _copy(model)
    own = next(each for each in copied.graph.node if each.name == node.name)
    kept = [attribute for attribute in own.attribute if attribute.name not in values]
    del own.attribute[:]
    own.attribute.extend([*kept, *(onnx.helper.make_attribute(name, value) for name, value in values.items())])
    return copied


def _with_operator(model: ModelProto, node: NodeProto, op_type: str, inputs: int | None = None) -> ModelProto:
    copied = _copy(model)
    own = next(each for each in copied.graph.node if each.name == node.name)
    own.op_type = op_type
    kept = [attribute for attribute in own.attribute if attribute.name in ("kernel_shape", "strides", "pads")]
    del own.attribute[:]
    own.attribute.extend(kept if "Pool" in op_type else [])
    if inputs is not None:
        del own.input[inputs:]
    return copied
