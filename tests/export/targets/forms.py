"""Graphs in forms that a target reads or does not read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.targets.linter import Finding, check, find_target

FLOAT, HALF, UINT8, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
Value = tuple[str, int, list[int]]
node = helper.make_node


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[Value],
    outputs: list[Value],
    opset: int = 17,
    constants: dict[str, Any] | None = None,
    values: list[Value] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
        value_info=[helper.make_tensor_value_info(*one) for one in values or []],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("me", 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def one(
    kind: str, shape: list[int] | None = None, opset: int = 17, constants: dict[str, Any] | None = None, **more: Any
) -> bytes:
    """A graph of one node, whose inputs are x and the constants."""
    shape = shape or [1, 3, 8, 8]
    extra = {name: more.pop(name) for name in ("outputs", "inputs", "domain") if name in more}
    made = extra.get("outputs", ["y"])
    names = extra.get("inputs", ["x", *(constants or {})])
    inner = node(kind, names, made, name="n", domain=extra.get("domain", ""), **more)
    return model([inner], [("x", FLOAT, shape)], [(name, FLOAT, shape) for name in made], opset, constants)


def errors(content: bytes, target: str) -> list[Finding]:
    return [finding for finding in check(content, find_target(target), "g.onnx") if finding.level == "error"]


def quantized(kind: Any, zero_point: int | None = 0, half: bool = False) -> bytes:
    constants = {"s": np.float16(0.1) if half else np.float32(0.1)} | (
        {} if zero_point is None else {"z": kind(zero_point)}
    )
    names = ["s"] if zero_point is None else ["s", "z"]
    nodes = [
        node("QuantizeLinear", ["x", *names], ["q"], name="n"),
        node("DequantizeLinear", ["q", *names], ["y"], name="m"),
    ]
    data = HALF if half else FLOAT
    return model(nodes, [("x", data, [1, 3])], [("y", data, [1, 3])], 19 if half else 17, constants)


# --- forms of an operator: (graph, a target that does not read it, one that does, the same operator in a form that is read)

AXES = {"a": np.int64([1])}
SCALES = {"roi": np.float32([]), "scales": np.float32([1, 1, 2, 2])}
computed = [("x", FLOAT, [2, 9]), ("a", INT64, [1])]


def with_computed_input(kind: str, between: dict[str, Any], opset: int = 18, outputs: str = "y") -> bytes:
    """A node whose last input is an input of the network; the ones between are constants."""
    inner = node(kind, ["x", *between, "a"], [*outputs], name="n")
    return model([inner], computed, [(name, FLOAT, [2, 9]) for name in outputs], opset, between)


def bytes_first(*kinds: str) -> bytes:
    """A Cast and a Transpose behind a uint8 input, in that order or the other."""
    names = ["x", "t", "y"]
    nodes = [
        node(kind, [names[i]], [names[i + 1]], **({"to": FLOAT} if kind == "Cast" else {}))
        for i, kind in enumerate(kinds)
    ]
    return model(nodes, [("x", UINT8, [1, 3])], [("y", FLOAT, [3, 1])])


def through(kind: int) -> bytes:
    """A tensor that is cast to a type and back."""
    nodes = [node("Cast", ["x"], ["t"], to=kind), node("Cast", ["t"], ["y"], to=FLOAT)]
    return model(nodes, [("x", FLOAT, [3])], [("y", FLOAT, [3])])


def with_constant(**attribute: Any) -> bytes:
    nodes = [node("Constant", [], ["c"], **attribute), node("Relu", ["x"], ["y"])]
    return model(nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])])


def lstm(**attributes: Any) -> bytes:
    weights = {"w": np.ones((1, 16, 8), np.float32), "r": np.ones((1, 16, 4), np.float32)}
    return one("LSTM", [1, 3, 8], constants=weights, hidden_size=4, **attributes)


def instance_norm() -> bytes:
    inner = node("InstanceNormalization", ["x", "s", "s"], ["y"])
    return model([inner], [("x", FLOAT, [1, 3, 8]), ("s", FLOAT, [3])], [("y", FLOAT, [1, 3, 8])])


POOL = {"kernel_shape": [2, 2]}
FORMS: dict[str, tuple[bytes, str, str | None, bytes]] = {
    "int8 zero point": (quantized(np.int8, 3), "tensorrt-11.1", None, quantized(np.int8)),
    "uint8 zero point": (quantized(np.uint8, 0), "tensorrt-10.3", None, quantized(np.int8)),
    "shifted uint8": (quantized(np.uint8, 128), "jetpack-6.0", None, quantized(np.int8)),
    "no zero point": (quantized(np.int8, None), "jetpack-6.0", None, quantized(np.int8)),
    "half scale": (quantized(np.int8, half=True), "jetpack-6.0", "tensorrt-10.0", quantized(np.int8)),
    "pool indices": (one("MaxPool", **POOL, outputs=["y", "i"]), "tensorrt-11.1", None, one("MaxPool", **POOL)),
    "pool dilation": (
        one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        "tensorrt-8.5",
        None,
        one("MaxPool", kernel_shape=[2, 2], dilations=[1, 1]),
    ),
    "norm mean": (
        one("LayerNormalization", constants={"s": np.ones(8, np.float32)}, outputs=["y", "m"]),
        "tensorrt-10.3",
        None,
        one("LayerNormalization", constants={"s": np.ones(8, np.float32)}),
    ),
    "batch norm training": (
        one("BatchNormalization", constants={n: np.ones(3, np.float32) for n in "abcd"}, training_mode=1),
        "tensorrt-10.3",
        None,
        one("BatchNormalization", constants={n: np.ones(3, np.float32) for n in "abcd"}),
    ),
    "dropout training": (
        one("Dropout", constants={"r": np.float32(0.5), "t": np.bool_(True)}),
        "tensorrt-10.3",
        None,
        one("Dropout", constants={"r": np.float32(0.5), "t": np.bool_(False)}),
    ),
    "computed scales of some axes": (
        model(
            [node("Resize", ["x", "", "s"], ["y"], mode="linear", axes=[2, 3])],
            [("x", FLOAT, [1, 3, 8, 8]), ("s", FLOAT, [2])],
            [("y", FLOAT, [1, 3, "h", "w"])],
            18,
        ),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES, mode="linear"),
    ),
    "l3 norm": (one("LpNormalization", p=3), "tensorrt-10.3", None, one("LpNormalization", p=1)),
    "antialias": (
        one("Resize", opset=18, constants=SCALES, mode="linear", antialias=1),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES, mode="linear", antialias=0),
    ),
    "aspect ratio": (
        one("Resize", opset=18, constants=SCALES, keep_aspect_ratio_policy="not_larger"),
        "tensorrt-11.1",
        None,
        one("Resize", opset=18, constants=SCALES),
    ),
    "crop and resize": (
        one("Resize", constants=SCALES, mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
        "jetpack-6.0",
        None,
        one("Resize", constants=SCALES, mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"),
    ),
    "volume": (
        one("GridSample", [1, 3, 4, 4, 4], 20, {"g": np.zeros((1, 2, 2, 2, 3), np.float32)}),
        "tensorrt-11.1",
        "tensorrt-11.2",
        one("GridSample", [1, 3, 4, 4], 20, {"g": np.zeros((1, 2, 2, 2), np.float32)}),
    ),
    "scatter and add": (
        one("ScatterND", [4], 18, {"i": np.int64([[0]]), "u": np.float32([1])}, reduction="add"),
        "tensorrt-11.1",
        None,
        one("ScatterND", [4], 18, {"i": np.int64([[0]]), "u": np.float32([1])}),
    ),
    "ellipsis": (
        one("Einsum", [2, 3, 4], constants={"b": np.ones((2, 4, 3), np.float32)}, equation="...ij,...jk->...ik"),
        "jetpack-6.2",
        "tensorrt-10.12",
        one("Einsum", [2, 3, 4], constants={"b": np.ones((2, 4, 3), np.float32)}, equation="bij,bjk->bik"),
    ),
    "diagonal": (one("Einsum", [3, 3], equation="ii->i"), "jetpack-6.2", "tensorrt-10.12", one("Einsum", [3, 3], equation="ij->i")),
    "integer power": (
        model([node("Pow", ["x", "e"], ["y"])], [("x", INT64, [2])], [("y", INT64, [2])], 17, {"e": np.int64(2)}),
        "jetpack-6.2",
        "tensorrt-10.12",
        one("Pow", constants={"e": np.float32(2)}),
    ),
    "string": (with_constant(value_string="a"), "tensorrt-10.3", None, with_constant(value_float=1.0)),
    "reduced axes": (with_computed_input("ReduceMean", {}), "tensorrt-11.1", None, one("ReduceMean", [2, 9], 18, AXES)),
    "squeezed axes": (with_computed_input("Squeeze", {}, 17), "tensorrt-11.1", None, one("Squeeze", [2, 1], 17, AXES)),
    "summed axis": (
        with_computed_input("CumSum", {}, 17),
        "jetpack-6.2",
        "tensorrt-10.8",
        one("CumSum", [2, 9], 17, {"a": np.int64(1)}),
    ),
    "padded axes": (
        with_computed_input("Pad", {"p": np.int64([0, 1]), "v": np.float32(0)}),
        "jetpack-6.2",
        "tensorrt-10.4",
        one("Pad", [2, 9], 18, {"p": np.int64([0, 1]), "v": np.float32(0), **AXES}),
    ),
    "sliced axes": (
        with_computed_input("Slice", {"s": np.int64([0]), "e": np.int64([2**63 - 1])}, 17),
        "jetpack-6.0",
        "jetpack-6.1",
        one("Slice", [2, 9], 17, {"s": np.int64([0]), "e": np.int64([2**63 - 1]), **AXES}),
    ),
    "top k": (
        with_computed_input("TopK", {}, 17, "yi"),
        "jetpack-5.1",
        "jetpack-6.0",
        one("TopK", [2, 9], 17, {"k": np.int64([3])}, outputs=["y", "i"]),
    ),
    "group norm of opset 21": (
        one("GroupNormalization", opset=21, constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, num_groups=3),
        "tensorrt-10.8",
        "tensorrt-10.14",
        one("GroupNormalization", opset=18, constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, num_groups=3),
    ),
    "instance norm": (
        instance_norm(),
        "jetpack-5.1",
        "jetpack-6.0",
        one("InstanceNormalization", constants={"s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}),
    ),
    "lstm layout": (lstm(layout=1), "tensorrt-10.3", None, lstm()),
    "coupled lstm": (lstm(input_forget=1), "tensorrt-10.3", None, lstm()),
    "bytes inside": (bytes_first("Transpose", "Cast"), "jetpack-6.0", None, bytes_first("Cast", "Transpose")),
    "bytes between": (through(UINT8), "tensorrt-11.1", None, through(TensorProto.INT32)),
    "bytes made": (
        model([node("Transpose", ["x"], ["y"])], [("x", UINT8, [3])], [("y", UINT8, [3])]),
        "tensorrt-11.1",
        None,
        model([node("Cast", ["x"], ["y"], to=UINT8)], [("x", FLOAT, [3])], [("y", UINT8, [3])]),
    ),
    "bfloat16": (
        model([node("Relu", ["x"], ["y"])], [("x", TensorProto.BFLOAT16, [3])], [("y", TensorProto.BFLOAT16, [3])]),
        "jetpack-6.0",
        "jetpack-6.1",
        model([node("Relu", ["x"], ["y"])], [("x", HALF, [3])], [("y", HALF, [3])]),
    ),
    "int16": (through(TensorProto.INT16), "tensorrt-11.1", None, through(HALF)),
    "wide integers": (
        model([node("Mul", ["x", "c"], ["y"])], [("x", INT64, [1])], [("y", INT64, [1])], 17, {"c": np.int64([2**40])}),
        "jetpack-6.0",
        "jetpack-6.1",
        model([node("Mul", ["x", "c"], ["y"])], [("x", INT64, [1])], [("y", INT64, [1])], 17, {"c": np.int64([2**30])}),
    ),
}  # fmt: skip
