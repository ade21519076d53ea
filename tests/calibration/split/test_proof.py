"""The proof that parts are the whole: it holds for parts as they are cut, and for none that was changed anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mtl_deploy.calibration.split.cut import split
from mtl_deploy.calibration.split.proof import prove
from mtl_deploy.runtime.errors import VerificationError
from tests.networks.dense_bundle import dense_graph, dense_signature
from tests.networks.split_bundle import uneven_graph

WHOLE = uneven_graph()
Change = Callable[[onnx.ModelProto], None]


def cut() -> dict[str, bytes]:
    return {part.name: part.content for part in split(WHOLE)}


def changed(name: str, change: Change) -> list[tuple[str, bytes]]:
    parts = cut()
    model = onnx.load_from_string(parts[name])
    change(model)
    parts[name] = model.SerializeToString()
    return list(parts.items())


def test_parts_as_they_are_cut() -> None:
    prove(WHOLE, list(cut().items()))
    dense = dense_graph(dense_signature(multiple=4))
    prove(dense, [(part.name, part.content) for part in split(dense)])


def weight(name: str, values: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(model: onnx.ModelProto) -> None:
        found = next(each for each in model.graph.initializer if each.name == name)
        found.CopyFrom(numpy_helper.from_array(values(numpy_helper.to_array(found).copy()), name))

    return change


def next_number(values: np.ndarray) -> np.ndarray:
    values.reshape(-1)[1] = np.nextafter(values.reshape(-1)[1], np.float32(9))
    return values


def attribute(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Conv").attribute[0].ints[0] += 1


def operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"


def swapped_inputs(model: onnx.ModelProto) -> None:
    model.graph.input[0].name, model.graph.input[1].name = model.graph.input[1].name, model.graph.input[0].name
    for node in model.graph.node:
        names = {"stage1": "stage2", "stage2": "stage1"}
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def another_weight_of_the_same_shape(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "MatMul")
    node.input[1] = "other"
    next(each for each in model.graph.initializer if each.name == "wb").name = "other"


def input_of_another_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "conv2"
    model.graph.node[0].input[0] = "conv2"


def weight_in_place_of_an_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 8, 12), np.float32), "neck"))
    del model.graph.input[:]


def weight_beside_an_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 8, 12), np.float32), "neck"))


def opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def missing_node(model: onnx.ModelProto) -> None:
    del model.graph.node[-1]


MUTANTS: dict[str, tuple[str, Change, str]] = {
    "a weight, by the least": ("head-c", weight("wc", next_number), "the weight 'wc' is not that"),
    "weights swapped": ("head-c", weight("deep", lambda values: values[::-1].copy()), "the weight 'deep' is not that"),
    "a weight of the backbone": ("backbone", weight("w2", next_number), "the weight 'w2' is not that"),
    "an attribute": ("backbone", attribute, "the node that gives 'conv1' is not that"),
    "an operator": ("neck-1", operator, "the node that gives 'neck' is not that"),
    "inputs swapped": ("neck-1", swapped_inputs, "the node that gives"),
    "another weight": ("head-b", another_weight_of_the_same_shape, "the node that gives 'b'|the weight 'other'"),
    "a tensor that nobody gives": ("head-a", input_of_another_name, "the node that gives|'conv2', which no part"),
    "a weight for an input": ("head-b", weight_in_place_of_an_input, "the weight 'neck' is not that"),
    "a weight beside an input": ("head-b", weight_beside_an_input, "the weight 'neck' is not that"),
    "the opset": ("head-a", opset, "its opsets or functions are not those"),
    "a node is missing": ("head-a", missing_node, "nothing in it gives 'a'"),
}


@pytest.mark.parametrize(("name", "change", "message"), MUTANTS.values(), ids=MUTANTS)
def test_a_change_is_noticed(name: str, change: Change, message: str) -> None:
    with pytest.raises(VerificationError, match=f"{name}: .*({message})"):
        prove(WHOLE, changed(name, change))


def test_a_missing_part_is_noticed() -> None:
    parts = cut()
    without = {name: content for name, content in parts.items() if name != "head-b"}
    with pytest.raises(VerificationError, match="no part gives 'b'"):
        prove(WHOLE, list(without.items()))
    without = {name: content for name, content in parts.items() if name != "neck-1"}
    with pytest.raises(VerificationError, match="it reads 'neck', which no part before it gives"):
        prove(WHOLE, list(without.items()))


def test_the_order_is_proven_too() -> None:
    with pytest.raises(VerificationError, match="which no part before it gives"):
        prove(WHOLE, list(reversed(cut().items())))
