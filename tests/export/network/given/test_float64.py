"""A graph in float64 computes what ONNX Runtime computes in float32: convolutions and poolings with every attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.network.given.float64 import Float64, TooSlowError

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(6, 4, 3, 2)).astype(np.float32)
GROUPED = RANDOM.normal(size=(6, 2, 3, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=6).astype(np.float32)
TURNED = RANDOM.normal(size=(4, 3, 3, 4)).astype(np.float32)

EVERY = {"ceil_mode": 1, "count_include_pad": 1}
CASES: list[tuple[str, dict[str, Any], list[np.ndarray]]] = [
    ("Conv", {}, [WEIGHT, BIAS]),
    ("Conv", {"pads": [2, 0, 1, 3], "strides": [2, 3]}, [WEIGHT]),
    ("Conv", {"dilations": [2, 3], "pads": [1, 1, 1, 1]}, [WEIGHT, BIAS]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [WEIGHT, BIAS]),
    ("Conv", {"auto_pad": "SAME_LOWER"}, [WEIGHT, BIAS]),
    ("Conv", {"auto_pad": "VALID"}, [WEIGHT, BIAS]),
    ("Conv", {"group": 2, "kernel_shape": [3, 3]}, [GROUPED, BIAS]),
    ("ConvTranspose", {}, [TURNED, BIAS[:3]]),
    ("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2]}, [TURNED, BIAS[:3]]),
    ("ConvTranspose", {"strides": [3, 3], "dilations": [2, 1]}, [TURNED]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, []),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, []),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}, []),
    ("MaxPool", {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1, 2, 2, 1]}, []),
    ("MaxPool", {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "strides": [2, 2]}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], "count_include_pad": 1}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    ("AveragePool", {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, []),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1] * 4, **EVERY}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 1], **EVERY}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [3, 3], "auto_pad": "SAME_LOWER", **EVERY}, []),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [3, 2], "auto_pad": "SAME_UPPER", "ceil_mode": 1}, []),
]  # fmt: skip


def single(op: str, attributes: dict[str, Any], constants: list[np.ndarray]) -> onnx.ModelProto:
    """Return a graph of one node."""
    names = [f"c{place}" for place in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], "node", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 11, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize(("op", "attributes", "constants"), CASES)
def test_it_computes_what_onnx_runtime_does(op: str, attributes: dict[str, Any], constants: list[np.ndarray]) -> None:
    model = single(op, attributes, constants)
    image = RANDOM.normal(size=(2, 4, 11, 8))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {"x": image.astype(np.float32)})
    [found] = Float64(model, ["y"]).run("x", image, seconds=60)
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_it_stops_when_its_time_is_over() -> None:
    model = single("Conv", {}, [WEIGHT, BIAS])
    with pytest.raises(TooSlowError):
        Float64(model, ["y"]).run("x", RANDOM.normal(size=(2, 4, 11, 8)), seconds=-1)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [3, 3], "dilations": [2, 1], "strides": [2, 1], "auto_pad": "SAME_UPPER"}),
        ("MaxPool", {"kernel_shape": [1, 1], "strides": [3, 3], "auto_pad": "SAME_LOWER"}),
        ("AveragePool", {"kernel_shape": [1, 1], "strides": [3, 3], "auto_pad": "SAME_UPPER", "count_include_pad": 1}),
    ],
)
def test_what_onnx_runtime_pads_in_its_own_way_is_not_guessed(op: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        Float64(single(op, attributes, []), ["y"]).run("x", RANDOM.normal(size=(2, 4, 11, 8)), seconds=60)


def test_an_output_that_is_left_out_stays_out_beside_graphs_in_nodes() -> None:
    def branch(name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Identity", ["r"], [name])], name, [], [value])

    constants = {"w": (1, 12, 4), "r1": (1, 12, 3)}
    held = [
        numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name) for name, shape in constants.items()
    ]
    held += [numpy_helper.from_array(np.float32(0.1), "most"), numpy_helper.from_array(np.array(True), "yes")]
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r1"], ["", "last"], hidden_size=3),  # writes an output that nobody reads
        helper.make_node("Clip", ["last", "", "most"], ["r"]),  # and this has an input that nobody gives
        helper.make_node("If", ["yes"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    image = RANDOM.normal(size=(2, 1, 4))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {"x": image.astype(np.float32)})
    [found] = Float64(model, ["y"]).run("x", image, seconds=60)
    assert expected.min() < 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
