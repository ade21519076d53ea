"""Graphs that engines are built from in tests, and what their plans must hold."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: mtl-deploy[tensorrt-rtx]"
)


def weight_bytes(content: bytes) -> dict[str, int]:
    """Return the bytes of a graph's floating-point weights, by type, those of more than a few values."""
    found: dict[str, int] = {}
    for tensor in onnx.load_from_string(content).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size > 1000 and array.dtype in (np.float32, np.float16, np.int8):
            name = {"float32": "fp32", "float16": "fp16", "int8": "int8"}[array.dtype.name]
            found[name] = found.get(name, 0) + array.nbytes
    return found


def quantized(content: bytes) -> bytes:
    """Return a graph with Q/DQ in TensorRT's style: symmetric S8 in front of each convolution and product, weights per channel."""
    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    made: dict[str, str] = {}

    def constant(name: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and node.input[1] in weights and weights[node.input[1]].dtype == np.float32:
            weight = weights[node.input[1]]
            scale = np.abs(weight).reshape(len(weight), -1).max(1).astype(np.float32) / 127
            steps = scale.reshape(-1, *[1] * (weight.ndim - 1))
            values = np.clip(np.rint(weight / steps), -127, 127).astype(np.int8)
            q = constant(f"{node.name}/w8", values)
            inputs = [
                q,
                constant(f"{node.name}/ws", scale),
                constant(f"{node.name}/wz", np.zeros(len(weight), np.int8)),
            ]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{node.name}/w"], f"{node.name}/wdq", axis=0))
            source = node.input[0]
            if source not in made:
                ends = [constant(f"{source}/s", np.float32(0.05)), constant(f"{source}/z", np.int8(0))]
                nodes.append(helper.make_node("QuantizeLinear", [source, *ends], [f"{source}/q8"], f"{source}/q"))
                nodes.append(
                    helper.make_node("DequantizeLinear", [f"{source}/q8", *ends], [f"{source}/dq8"], f"{source}/dq")
                )
                made[source] = f"{source}/dq8"
            node.input[0], node.input[1] = made[source], f"{node.name}/w"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return model.SerializeToString()


def small_graph(op_type: str = "Relu") -> bytes:
    """Return a graph of one convolution and one node of the given operator."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], "conv"),
            helper.make_node(op_type, ["c"], ["age"], "last"),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()
