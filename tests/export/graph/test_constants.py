"""What is added to a graph gets a name of its own, whatever names the graph holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.graph import borders, opset, pads, passes, squeezes
from mtl_deploy.export.graph.constants import constant, free_name
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

IMAGE = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)


def made(nodes: list[onnx.NodeProto], taken: str, **constants: np.ndarray) -> ir.Model:
    """Return a graph from ``x`` to ``y`` in which a node that adds 5 reads it from a constant of the taken name."""
    held = {**constants, taken: np.array(5, np.float32)}
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["z", taken], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    passes.infer_shapes(model)
    return model


def answer(model: ir.Model) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # which folds pads wrongly
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": IMAGE})[0])


def resized() -> ir.Model:
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["z"], mode="nearest")]
    return made(nodes, "z_scales", sizes=np.array([1, 1, 8, 8]))


def padded() -> ir.Model:
    nodes = [
        helper.make_node("Pad", ["x", "around"], ["padded"], mode="constant"),
        helper.make_node("MaxPool", ["padded"], ["z"], "pool", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    return made(nodes, "pool/keep_pad_lowest", around=np.array([0, 0, 0, 0, 0, 0, 1, 1]))


def squeezed() -> ir.Model:
    model = made([helper.make_node("Squeeze", ["x"], ["z"], "squeeze")], "z_axes")
    squeeze = next(iter(model.graph))
    assert squeeze.inputs[0] is not None
    squeeze.inputs[0].shape = ir.Shape(["batch", 1, 4, 4])
    return model


def split() -> ir.Model:
    nodes = [
        helper.make_node("Split", ["x"], ["first", "second"], "split", axis=2, num_outputs=2),
        helper.make_node("Sub", ["first", "second"], ["z"]),
    ]
    return made(nodes, "first_split")


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (resized, passes.resize_by_scales),
        (padded, pads.keep_pads),
        (squeezed, squeezes.settle_squeezes),
        (split, lambda model: opset.write_opset(model, 17)),
    ],
    ids=["resize", "pad", "squeeze", "split"],
)
def test_a_step_adds_its_constant_beside_one_of_that_name(
    make: Callable[[], ir.Model], step: Callable[[ir.Model], object]
) -> None:
    model = make()
    before, names = answer(make()), set(model.graph.initializers)
    step(model)
    assert set(model.graph.initializers) - names
    np.testing.assert_array_equal(answer(model).reshape(-1), before.reshape(-1))


@pytest.mark.parametrize(
    "taken", ["preprocess.scale", "preprocess/cast_out", "decode.age.scale", "decode/age/scale_out"]
)
def test_both_borders_find_names_of_their_own(taken: str) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["z"])]
    model = made(nodes, taken)
    wanted = answer(model)
    task = Task("age", "regression", size=1, scale=3.0, offset=2.0)
    preprocessing = Preprocessing(4, 4, mean=(0.0,), std=(1.0,))
    borders.rename_outputs(model, [0], ["age"])
    borders.add_preprocessing(model, preprocessing)
    borders.add_decoding(model, Signature((task,), preprocessing, "decoded"))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(["age"], {"image": np.full((1, 4, 4, 1), 51, np.uint8)})
    np.testing.assert_allclose(found, 3 * (0.2 + wanted - IMAGE.mean()) + 2, rtol=1e-5)


def branched() -> ir.Model:
    """Return a graph whose branches hold a constant ``held`` and a value ``inner``."""
    inside = helper.make_graph(
        [helper.make_node("Identity", ["held"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(1, np.float32), "held")],
    )
    nodes = [helper.make_node("If", ["yes"], ["z"], then_branch=inside, else_branch=inside)]
    return made(nodes, "five", yes=np.array(True))


@pytest.mark.parametrize("name", ["held", "inner", "five", "x"])
def test_an_output_gets_its_name_and_what_had_it_another(name: str) -> None:
    model = branched()
    wanted = answer(branched())
    borders.rename_outputs(model, [0], [name])
    graphs = [model.graph, *model.graph.subgraphs()]
    held = [value.name for node in model.graph.all_nodes() for value in node.outputs]
    held += [value.name for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    assert held.count(name) == 1
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run([name], {session.get_inputs()[0].name: IMAGE})[0], wanted)


def test_names_inside_branches_are_taken_too() -> None:
    model = branched()
    assert [free_name(model, name) for name in ("x", "held", "inner", "z", "new")] == [
        "x_1", "held_1", "inner_1", "z_1", "new",
    ]  # fmt: skip
    assert [constant(model, "five", np.ones(2)).name for _ in range(2)] == ["five_1", "five_2"]
