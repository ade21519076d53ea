"""A small network with all that Q/DQ placement must tell apart: two kinds of residual sums, a pool, heads of two depths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.observe.histograms import collect
from mtl_deploy.calibration.observe.ranges import Range, choose
from mtl_deploy.calibration.observe.statistics import observe

WEIGHTED = ["stem", "a1", "a2", "b1", "b2", "b_down", "age_hidden", "age_raw", "gender_raw"]


def residual_graph(sketch: Any, opset: int = 17) -> onnx.ModelProto:
    """``image -> stem -> pool -> identity block a -> downsampling block b -> age (two layers), gender (one layer)``."""
    graph = sketch(opset=opset)
    stem = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="stem"), name="stem_relu")
    pool = graph.node("MaxPool", stem, name="max", kernel_shape=[2, 2], strides=[2, 2])
    a1 = graph.node("Relu", graph.conv(pool, (8, 8), name="a1"), name="a1_relu")
    a_sum = graph.node("Add", graph.conv(a1, (8, 8), name="a2"), pool, name="a_sum")
    a = graph.node("Relu", a_sum, name="a_relu")
    b1 = graph.node("Relu", graph.conv(a, (8, 16), name="b1", strides=[2, 2]), name="b1_relu")
    b2 = graph.conv(b1, (16, 16), name="b2")
    b_sum = graph.node("Add", graph.conv(a, (8, 16), name="b_down", strides=[2, 2]), b2, name="b_sum")
    features = graph.features(graph.node("Relu", b_sum, name="b_relu"))
    hidden = graph.node("Relu", linear(graph, features, (16, 12), name="age_hidden"), name="age_relu")
    linear(graph, hidden, (12, 1), name="age_raw")
    graph.node("Mul", "age_raw", graph.weight("age.scale", np.float32(30)), name="age")
    graph.node("Sigmoid", linear(graph, features, (16, 1), name="gender_raw"), name="gender")
    return graph.model({"age": ("batch", 1), "gender": ("batch", 1)})


def linear(graph: Any, data: str, sizes: tuple[int, int], *, name: str) -> str:
    """A layer as PyTorch's exporter writes ``nn.Linear``."""
    matrix = 0.3 * graph.random.standard_normal(sizes[::-1])
    weight = graph.weight(f"{name}.weight", matrix.astype(np.float32))
    bias = graph.weight(f"{name}.bias", (0.1 * graph.random.standard_normal(sizes[1])).astype(np.float32))
    return str(graph.node("Gemm", data, weight, bias, name=name, transB=1))


def calibrated(model: onnx.ModelProto, images: np.ndarray, method: str = "minmax") -> dict[str, Range]:
    """Return the ranges of all tensors that either style quantizes."""
    names = sorted({name for style in ("tensorrt", "cpu") for name in place(model, style, heads=True).tensors})
    histograms = collect(model, names, [images], observe(model, [images], threads=1), threads=1)
    return {name: choose(histogram, method) for name, histogram in histograms.items()}


class Reading:
    """A graph's nodes by name and by output, and its weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = {node.name: node for node in model.graph.node}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.weights: Mapping[str, np.ndarray] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }

    def reads(self, node: str, position: int) -> str:
        """Return what kind of node gives an input: ``weight`` for none."""
        name = self.nodes[node].input[position]
        return "weight" if name in self.weights else self.producers[name].op_type

    def behind(self, node: str, position: int) -> str:
        """Return the tensor that was quantized for an input."""
        dequantize = self.producers[self.nodes[node].input[position]]
        assert dequantize.op_type == "DequantizeLinear"
        quantize = self.producers[dequantize.input[0]]
        assert quantize.op_type == "QuantizeLinear"
        assert list(quantize.input[1:]) == list(dequantize.input[1:])
        return str(quantize.input[0])


Builder = Callable[..., onnx.ModelProto]
