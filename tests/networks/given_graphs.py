"""ONNX graphs as other people's exporters write them: one small network with two heads, in many styles.

``graph()`` is two convolutions, pooled, with the heads ``age`` (N, 1) and ``race`` (N, 4). Each style changes one thing that
exporters do differently; the weights, and with them the answers, stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
Model = onnx.ModelProto


def weights(seed: int = 5) -> dict[str, np.ndarray]:
    """Return the weights, by name."""
    random = np.random.default_rng(seed)
    shapes = {
        "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (1, 8), "b3": (1,), "w4": (4, 8), "b4": (4,),
    }  # fmt: skip
    return {name: (random.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


def graph(
    *,
    opset: int = 17,
    ir_version: int = 8,
    batch: int | str | None = "N",
    front: list[onnx.NodeProto] | None = None,
    image: tuple[str, int, list[Any]] | None = None,
    middle: list[onnx.NodeProto] | None = None,
    tail: list[onnx.NodeProto] | None = None,
    outputs: list[tuple[str, int, list[Any]]] | None = None,
    more: dict[str, np.ndarray] | None = None,
    flatten: list[onnx.NodeProto] | None = None,
) -> Model:
    """Return the network; every part of it can be replaced.

    Args:
        opset: of ONNX's operators.
        ir_version: of the file.
        batch: of the image and the outputs; None: not stated.
        front: nodes that make ``x`` from the image.
        image: name, type and shape of the input; the default is ``x``, float, ``(batch, 3, 32, 32)``.
        middle: nodes that make ``f`` from ``features``, ``(N, 8)``; the default is an ``Identity``.
        tail: nodes behind ``age`` and ``race``.
        outputs: name, type and shape of each; the default is ``age`` and ``race``.
        more: other constants.
        flatten: nodes that make ``features`` from ``pooled``, ``(N, 8, 1, 1)``.
    """
    nodes = [
        *(front or []),
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        *(flatten or [helper.make_node("Flatten", ["pooled"], ["features"], "flatten", axis=1)]),
        *(middle or [helper.make_node("Identity", ["features"], ["f"], "identity")]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["age"], "head1", transB=1),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["race"], "head2", transB=1),
        *(tail or []),
    ]
    name, kind, shape = image or ("x", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
    given = outputs or [("age", TensorProto.FLOAT, [batch, 1]), ("race", TensorProto.FLOAT, [batch, 4])]
    constants = {**weights(), **(more or {})}
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, kind, shape)],
        [helper.make_tensor_value_info(*each) for each in given],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def listed_initializers() -> Model:
    """Before IR version 4, every initializer was an input too."""
    model = graph(opset=9, ir_version=3)
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    return model


def nameless() -> Model:
    """Nodes without names, and two of the same name."""
    model = graph()
    for node in model.graph.node:
        node.name = "conv" if node.op_type == "Conv" else ""
    return model


def keras() -> Model:
    """Names with slashes and colons, channels last, a batch called ``unk__0``, as tf2onnx writes them."""
    front = [helper.make_node("Transpose", ["serving_default_input:0"], ["x"], "model/transpose:0", perm=[0, 3, 1, 2])]
    tail = [
        helper.make_node("Identity", ["age"], ["StatefulPartitionedCall:0"], "out/0"),
        helper.make_node("Softmax", ["race"], ["StatefulPartitionedCall:1"], "model/race/Softmax", axis=-1),
    ]
    return graph(
        front=front,
        image=("serving_default_input:0", TensorProto.FLOAT, ["unk__0", SIZE, SIZE, 3]),
        tail=tail,
        outputs=[
            ("StatefulPartitionedCall:0", TensorProto.FLOAT, ["unk__1", 1]),
            ("StatefulPartitionedCall:1", TensorProto.FLOAT, ["unk__2", 4]),
        ],
    )


def pixels(*, last: bool = True) -> Model:
    """Takes uint8 pixels and normalises them itself."""
    shape = ["N", SIZE, SIZE, 3] if last else ["N", 3, SIZE, SIZE]
    front = [
        helper.make_node("Cast", ["image"], ["floats"], "cast", to=TensorProto.FLOAT),
        *([helper.make_node("Transpose", ["floats"], ["planes"], "turn", perm=[0, 3, 1, 2])] if last else []),
        helper.make_node("Sub", ["planes" if last else "floats", "mean"], ["centred"], "sub"),
        helper.make_node("Div", ["centred", "std"], ["x"], "div"),
    ]
    more = {
        "mean": np.array([123.0, 117.0, 104.0], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([58.0, 57.0, 57.5], np.float32).reshape(1, 3, 1, 1),
    }
    return graph(front=front, image=("image", TensorProto.UINT8, shape), more=more)


def leftovers() -> Model:
    """Dropout as training leaves it, and the classes beside the logits."""
    middle = [
        helper.make_node("Dropout", ["features", "ratio"], ["dropped", "mask"], "dropout"),
        helper.make_node("Identity", ["dropped"], ["f"], "identity"),
    ]
    tail = [helper.make_node("ArgMax", ["race"], ["class"], "argmax", axis=1, keepdims=0)]
    outputs = [
        ("class", TensorProto.INT64, ["N"]),
        ("race", TensorProto.FLOAT, ["N", 4]),
        ("age", TensorProto.FLOAT, ["N", 1]),
    ]
    return graph(middle=middle, tail=tail, outputs=outputs, more={"ratio": np.array(0.5, np.float32)})


def baked() -> Model:
    """Batch 1, flattened by a constant shape: nothing but that shape fixes the batch."""
    flatten = [helper.make_node("Reshape", ["pooled", "shape"], ["features"], "flatten")]
    return graph(batch=1, flatten=flatten, more={"shape": np.array([1, -1], np.int64)})


def token() -> Model:
    """Batch 1 for good: features are joined with a constant of one row before the heads."""
    middle = [
        helper.make_node("Concat", ["features", "token"], ["both"], "concat", axis=1),
        helper.make_node("Slice", ["both", "zero", "eight", "one"], ["f"], "slice"),
    ]
    more = {
        "token": np.ones((1, 2), np.float32),
        "zero": np.array([0], np.int64),
        "eight": np.array([8], np.int64),
        "one": np.array([1], np.int64),
    }
    return graph(batch=1, middle=middle, more=more)


def mixing() -> Model:
    """Batch 1 on paper; with more, it runs, but each row depends on the others: it must stay at 1."""
    middle = [
        helper.make_node("ReduceMean", ["features"], ["mean"], "mean", axes=[0], keepdims=1),
        helper.make_node("Add", ["features", "mean"], ["f"], "add"),
    ]
    return graph(batch=1, middle=middle)


def lying() -> Model:
    """A batch that is free by name, and fixed by a constant shape."""
    flatten = [helper.make_node("Reshape", ["pooled", "shape"], ["features"], "flatten")]
    return graph(flatten=flatten, more={"shape": np.array([1, 8], np.int64)})


def half() -> Model:
    """Computes in FP16, with a float input."""
    front = [helper.make_node("Cast", ["image"], ["x"], "down", to=TensorProto.FLOAT16)]
    tail = [
        helper.make_node("Cast", ["age"], ["years"], "up1", to=TensorProto.FLOAT),
        helper.make_node("Cast", ["race"], ["classes"], "up2", to=TensorProto.FLOAT),
    ]
    outputs = [("years", TensorProto.FLOAT, ["N", 1]), ("classes", TensorProto.FLOAT, ["N", 4])]
    model = graph(front=front, image=("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]), tail=tail, outputs=outputs)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    return model


def functions() -> Model:
    """The activation is a function of the model's own."""
    model = graph()
    body = [helper.make_node("Max", ["v", "nothing"], ["w"])]
    zero = helper.make_node("Constant", [], ["nothing"], value=numpy_helper.from_array(np.zeros(1, np.float32)))
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Rectify", ["v"], ["w"], [zero, *body], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Rectify", "own"
    return model


def microsoft() -> Model:
    """As ONNX Runtime saves what it optimized: operators of its own."""
    model = graph(middle=[helper.make_node("Gelu", ["features"], ["f"], "gelu", domain="com.microsoft")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def quantized() -> Model:
    """INT8 already, with ranges that are found as it runs."""
    middle = [
        helper.make_node("DynamicQuantizeLinear", ["features"], ["q", "scale", "zero"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["f"], "dequantize"),
    ]
    return graph(middle=middle)


def training() -> Model:
    """Dropout that is on."""
    middle = [helper.make_node("Dropout", ["features", "ratio", "on"], ["f"], "dropout")]
    return graph(middle=middle, more={"ratio": np.array(0.5, np.float32), "on": np.array(True)})


def two_inputs() -> Model:
    """A second input that is no image."""
    model = graph(middle=[helper.make_node("Add", ["features", "pose"], ["f"], "add")])
    model.graph.input.append(helper.make_tensor_value_info("pose", TensorProto.FLOAT, ["N", 8]))
    return model


def upsampled(opset: int) -> Model:
    """A map beside the rows, upsampled as its opset does it."""
    more = {"scales": np.array([1, 1, 4, 4], np.float32)}
    inputs = ["r2", "scales"] if opset < 11 else ["r2", "", "scales"]
    op = "Upsample" if opset < 10 else "Resize"
    attributes = (
        {"mode": "linear"} if opset < 11 else {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    )
    tail = [helper.make_node(op, inputs, ["map"], "up", **attributes)]
    outputs = [
        ("age", TensorProto.FLOAT, ["N", 1]),
        ("race", TensorProto.FLOAT, ["N", 4]),
        ("map", TensorProto.FLOAT, ["N", 8, SIZE, SIZE]),
    ]
    return graph(opset=opset, tail=tail, outputs=outputs, more=more)


RUNS: dict[str, Callable[[], Model]] = {  # each gives the outputs of the same network, exported with a free batch
    **{
        f"opset {opset}": (lambda opset=opset: graph(opset=opset, ir_version=13 if opset > 23 else 8))
        for opset in (7, 9, 11, 13, 18, 21, 22, 24)
    },
    "unnamed batch": lambda: graph(batch=None),
    "batch 1": lambda: graph(batch=1),
    "batch 4": lambda: graph(batch=4),
    "listed initializers": listed_initializers,
    "nameless": nameless,
    "keras": keras,
    "pixels": pixels,
    "pixels in planes": lambda: pixels(last=False),
    "leftovers": leftovers,
    "baked": baked,
    "lying": lying,
    "half": half,
    "functions": functions,
    "microsoft": microsoft,
    "upsampled 9": lambda: upsampled(9),
    "upsampled 13": lambda: upsampled(13),
}
STAYS: dict[str, Callable[[], Model]] = {"token": token, "mixing": mixing}  # at a batch of 1
REFUSED: dict[str, tuple[Callable[[], Model], str]] = {  # with a part of the message
    "quantized": (quantized, "quantized already (1 DynamicQuantizeLinear, 1 DequantizeLinear)"),
    "training": (training, "in training mode"),
    "two inputs": (two_inputs, "'pose' (N, 8) float"),
    "opset 6": (lambda: graph(opset=6), "opset 6; 7 to"),
    "no image": (
        lambda: graph(image=("x", TensorProto.FLOAT, ["N", 3, 32])),
        "no input of this graph is a batch of images",
    ),
    "int64 image": (lambda: graph(image=("x", TensorProto.INT64, ["N", 3, 32, 32])), "float32 or uint8 input"),
    "unknown operator": (
        lambda: graph(middle=[helper.make_node("Swish", ["features"], ["f"], "swish")]),
        "cannot load this graph",
    ),
}
