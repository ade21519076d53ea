"""FP32 matrix products for Turing GPUs, written as convolutions.

TensorRT-RTX 1.7 reports "Cannot compile operation for Turing (SM75): FP32 GEMM is not supported", but it compiles FP32
convolutions. A product with a constant matrix is a convolution with a 1x1 kernel, so it is rewritten as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.graph.constants import constant
from mtl_deploy.runtime.errors import OptionError

if TYPE_CHECKING:
    import onnx_ir as ir


def products_as_convolutions(content: bytes) -> bytes:
    """Return an ``.onnx`` file in which FP32 products of a matrix ``(N, K)`` with a constant matrix are convolutions.

    Args:
        content: an ``.onnx`` file. Products of other shapes, with ``transA`` or without constant weights are left alone.

    Raises:
        OptionError: onnx and onnx-ir are not installed.
    """
    try:
        import onnx
        import onnx_ir as ir
    except ImportError as error:
        raise OptionError(
            f"--gpu sm75 needs onnx and onnx-ir to write FP32 matrix products as convolutions ({error}): pip install "
            "'mtl-deploy[export]', or leave sm75 out"
        ) from error
    model = ir.from_proto(onnx.load_from_string(content))
    changed = False
    for node in list(model.graph):
        changed = _rewrite(model, node) or changed
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True)) if changed else content


def _rewrite(model: ir.Model, node: ir.Node) -> bool:
    import onnx_ir as ir

    if node.op_type not in ("Gemm", "MatMul") or node.domain or _flag(node, "transA"):
        return False
    data, output = node.inputs[0], node.outputs[0]
    weight = _constant(node.inputs[1])
    if data is None or data.dtype != ir.DataType.FLOAT or data.shape is None or len(data.shape) != 2:
        return False
    if weight is None or weight.ndim != 2:
        return False
    if node.op_type == "Gemm" and _flag(node, "transB"):
        weight = weight.T
    kernel = (node.attributes.get_float("alpha", 1.0) * weight.T)[:, :, None, None].astype(np.float32)  # (M, K, 1, 1)
    inputs = []
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _constant(node.inputs[2])
        if bias is None:
            return False
        scaled = node.attributes.get_float("beta", 1.0) * bias
        inputs.append(_initializer(model, f"{node.name}/bias", np.broadcast_to(scaled.reshape(-1), (len(kernel),))))
    axes = _initializer(model, f"{node.name}/axes", np.array([2, 3], np.int64))
    spread = ir.node("Unsqueeze", [data, axes], name=f"{node.name}/unsqueeze")
    weights = _initializer(model, f"{node.name}/kernel", kernel)
    product = ir.node("Conv", [spread.outputs[0], weights, *inputs], name=f"{node.name}/conv")
    result = ir.node("Squeeze", [product.outputs[0], axes], name=f"{node.name}/squeeze")
    for made in (spread, product, result):
        made.outputs[0].name = f"{made.name}_out"
        made.outputs[0].type = output.type
    name = output.name
    output.replace_all_uses_with(result.outputs[0], replace_graph_outputs=True)
    result.outputs[0].shape = output.shape
    model.graph.insert_after(node, [spread, product, result])
    model.graph.remove(node, safe=True)
    result.outputs[0].name = name
    return True


def _flag(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())


def _constant(value: ir.Value | None) -> np.ndarray | None:
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _initializer(model: ir.Model, name: str, content: np.ndarray) -> ir.Value:
    return constant(model, name, content if content.dtype == np.int64 else content.astype(np.float32))
