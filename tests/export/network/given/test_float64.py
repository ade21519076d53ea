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
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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
