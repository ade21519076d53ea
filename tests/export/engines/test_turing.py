from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_graphs import needs_rtx
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.engines.build import build
from mtl_deploy.export.engines.turing import products_as_convolutions
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime.backends.tensorrt.library import import_library
from mtl_deploy.runtime.errors import BuildError

RNG = np.random.default_rng(0)


def product(op_type: str, weight: tuple[int, ...], *, bias: bool = False, **attributes: float) -> bytes:
    inputs = ["image", "w", "b"] if bias else ["image", "w"]
    node = helper.make_node(op_type, inputs, ["age"], "product", **attributes)
    weights = [numpy_helper.from_array(RNG.standard_normal(weight).astype(np.float32), "w")]
    size = weight[0] if attributes.get("transB") else weight[-1]
    weights += [numpy_helper.from_array(RNG.standard_normal(size).astype(np.float32), "b")] if bias else []
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch", size])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": image})
    return np.asarray(output)


@pytest.mark.parametrize(
    "content",
    [
        product("Gemm", (5, 6), bias=True, transB=1),
        product("Gemm", (6, 5), bias=True, alpha=0.5, beta=2.0),
        product("Gemm", (6, 5)),
        product("MatMul", (6, 5)),
    ],
    ids=["linear", "scaled", "no bias", "matmul"],
)
def test_a_product_becomes_a_convolution_of_the_same_values(content: bytes) -> None:
    changed = products_as_convolutions(content)
    model = onnx.load_from_string(changed)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Unsqueeze", "Conv", "Squeeze"]
    image = RNG.standard_normal((3, 6)).astype(np.float32)
    np.testing.assert_allclose(run(changed, image), run(content, image), rtol=1e-5, atol=1e-6)


def test_fp16_products_and_other_nodes_stay(article_bundle: Path) -> None:
    content = (article_bundle / "fp16.onnx").read_bytes()
    before, after = (onnx.load_from_string(each) for each in (content, products_as_convolutions(content)))
    count = {
        each: [node.op_type for node in model.graph.node].count("Gemm") for each, model in (("b", before), ("a", after))
    }
    assert count == {"b": 6, "a": 3}  # each head has one in FP16 and its last in FP32


@needs_rtx
def test_turing_needs_it_and_builds_with_it(article_bundle: Path) -> None:
    content = (article_bundle / "fp16.onnx").read_bytes()
    rtx, options = import_library("tensorrt-rtx"), EngineOptions(library="tensorrt-rtx", gpus=("sm75", "sm89"))
    with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
        build(content, "fp16.onnx", rtx, options, (1, 1, 8))
    assert build(products_as_convolutions(content), "fp16.onnx", rtx, options, (1, 1, 8)).plan
