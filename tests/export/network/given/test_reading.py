"""ONNX files are read within bounds: weights beside them, nothing outside their folder, and hostile ones end in one line."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import given_graphs
import numpy as np
import onnx
import pytest
from onnx import helper

from mtl_deploy.export.network.given import graph as given_graph
from mtl_deploy.export.network.given.float64 import Float64, TooSlowError
from mtl_deploy.export.network.given.load import load_graph
from mtl_deploy.export.network.given.reading import read_onnx
from mtl_deploy.export.network.given.tidy import prepare
from mtl_deploy.runtime.errors import CheckpointError, MtlError, TraceError
from tests.attacks import mutations


def with_data(folder: Path, **changes: str) -> Path:
    """Write a graph with its weights in ``weights.bin`` beside it, with other entries for the first of them."""
    folder.mkdir(exist_ok=True)
    model = given_graphs.graph()
    onnx.save(model, folder / "given.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    if changes:
        content = (folder / "given.onnx").read_bytes()
        model = onnx.load_from_string(content)
        for entry in model.graph.initializer[0].external_data:
            entry.value = changes.get(entry.key, entry.value)
        (folder / "given.onnx").write_bytes(model.SerializeToString())
    return folder / "given.onnx"


def test_weights_beside_the_graph_are_read_and_belong_to_its_digest(tmp_path: Path) -> None:
    found = read_onnx(with_data(tmp_path / "a"))
    assert found.beside == ("weights.bin",)
    given = {t.name: onnx.numpy_helper.to_array(t) for t in found.model.graph.initializer}
    for name, array in given_graphs.weights().items():
        np.testing.assert_array_equal(given[name], array)
    other = with_data(tmp_path / "b")
    content = bytearray((other.parent / "weights.bin").read_bytes())
    content[100] ^= 1
    (other.parent / "weights.bin").write_bytes(content)
    assert (tmp_path / "a" / "given.onnx").read_bytes() == other.read_bytes()
    assert read_onnx(other).sha256 != found.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "../secret.bin"}, "outside the graph's folder"),
        ({"location": "/etc/passwd"}, "outside the graph's folder"),
        ({"location": "link.bin"}, "outside the graph's folder"),
        ({"location": "down/../../secret.bin"}, "outside the graph's folder"),
        ({"location": ""}, "outside the graph's folder"),
        ({"location": "gone.bin"}, "copy that file next to the graph"),
        ({"location": "pipe"}, "Not a regular file"),
        ({"offset": "999999999"}, "ends before it"),
        ({"offset": "-4"}, "export it again"),
        ({"offset": "9" * 30}, "ends before it"),
        ({"length": "7"}, "864 bytes, but 7"),
        ({"length": "many"}, "is not a number"),
    ],
)
def test_a_place_that_is_not_the_graphs_own_is_not_read(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    file = with_data(tmp_path / "graph", **changes)
    (file.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_onnx(file)
    assert "\n" not in str(caught.value)


def test_a_tensor_in_a_branch_cannot_name_a_file_outside(tmp_path: Path) -> None:
    model = given_graphs.graph()
    tensor = helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    body = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], "if", then_branch=body, else_branch=body))
    file = tmp_path / "given.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="outside the graph's folder"):
        read_onnx(file)


def unfit(style: str) -> onnx.ModelProto:
    """Return a graph with a tensor that does not hold what it states."""
    model = given_graphs.half() if style == "half" else given_graphs.graph()
    tensor = next(one for one in model.graph.initializer if one.name == "w3")
    if style in ("short", "half"):
        tensor.raw_data = tensor.raw_data[:-1]
    elif style == "long":
        tensor.raw_data += bytes(4)
    elif style == "negative":
        tensor.dims[:] = [-1, 8]
    elif style == "type":
        tensor.data_type = 99
    elif style == "typed":
        tensor.ClearField("raw_data")
        tensor.float_data.extend([0.0] * 7)
    else:
        inner = helper.make_tensor("", onnx.TensorProto.BOOL, [4], [True] * 4)
        inner.int32_data.pop()
        on = helper.make_node("Constant", [], ["on"], "switch", value=inner)
        ratio = helper.make_node("Constant", [], ["ratio"], "ratio", value_float=0.5)
        place = next(place for place, node in enumerate(model.graph.node) if node.output[0] == "f")
        model.graph.node[place].CopyFrom(helper.make_node("Dropout", ["features", "ratio", "on"], ["f"], "dropout"))
        model.graph.node.insert(place, on)
        model.graph.node.insert(place, ratio)
    return model


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("short", r"tensor 'w3' does not hold what it states, FLOAT of shape \[1, 8\]"),
        ("long", r"tensor 'w3' does not hold what it states, FLOAT of shape \[1, 8\]"),
        ("half", r"tensor 'w3' does not hold what it states, FLOAT16 of shape \[1, 8\]"),
        ("negative", r"tensor 'w3' does not hold what it states, FLOAT of shape \[-1, 8\]"),
        ("type", r"tensor 'w3' does not hold what it states, type 99 of shape \[1, 8\]"),
        ("typed", r"tensor 'w3' does not hold what it states, FLOAT of shape \[1, 8\]"),
        ("node", r"the tensor in node 'switch' does not hold what it states, BOOL of shape \[4\]"),
    ],
)
def test_a_tensor_that_does_not_hold_what_it_states_is_named(style: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "given.onnx"
    file.write_bytes(unfit(style).SerializeToString())
    with pytest.raises(CheckpointError, match=message) as caught:
        load_graph(file, (32, 32), 1)
    assert "\n" not in str(caught.value)


def test_a_constant_without_a_tensor_is_refused_in_one_line(tmp_path: Path) -> None:
    model = given_graphs.training()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["strange"], "strange", value=3))
    file = tmp_path / "given.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="training mode"):
        load_graph(file, (32, 32), 1)
    next(node for node in model.graph.node if node.op_type == "Dropout").input[2] = "strange"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="cannot load this graph"):
        load_graph(file, (32, 32), 1)


def looped(rounds: int) -> onnx.ModelProto:
    """Return a graph with a loop that does nothing, as often as it is told to."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            value("i", onnx.TensorProto.INT64, []),
            value("go", onnx.TensorProto.BOOL, []),
            value("v", onnx.TensorProto.FLOAT, None),
        ],
        [value("on", onnx.TensorProto.BOOL, []), value("w", onnx.TensorProto.FLOAT, None)],
    )
    middle = [helper.make_node("Loop", ["rounds", "yes", "features"], ["f"], "loop", body=body)]
    return given_graphs.graph(middle=middle, more={"rounds": np.array(rounds), "yes": np.array(True)})


def test_a_loop_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "given.onnx"
    file.write_bytes(looped(1000).SerializeToString())
    assert load_graph(file, (32, 32), 1).graph.outputs == ("age", "race")
    file.write_bytes(looped(30_000_000).SerializeToString())
    monkeypatch.setattr(given_graph, "LONGEST", 0.2)
    with pytest.raises(
        TraceError, match=r"fails on 2 images of 32x32: it was stopped after 0\.4 seconds; a loop"
    ) as caught:
        load_graph(file, (32, 32), 1)
    assert "\n" not in str(caught.value)


def test_a_loop_that_takes_long_in_float64_is_stopped() -> None:
    image = np.zeros((1, 3, 32, 32))
    [age] = Float64(looped(20), ["age"]).run("x", image, seconds=60)
    assert age.shape == (1, 1)
    with pytest.raises(TooSlowError):
        Float64(looped(1_000_000), ["age"]).run("x", image, seconds=0.3)


def test_functions_that_double_at_each_call_are_counted_and_not_written_out() -> None:
    model = given_graphs.functions()
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    inner = "Rectify"
    for level in range(60):
        body = [
            helper.make_node(inner, ["v"], ["t"], domain="own"),
            helper.make_node(inner, ["t"], ["w"], domain="own"),
        ]
        inner = f"Level{level}"
        model.functions.append(helper.make_function("own", inner, ["v"], ["w"], body, opsets))
    for node in model.graph.node:
        node.op_type = inner if node.op_type == "Rectify" else node.op_type
    with pytest.raises(CheckpointError, match="nodes written out"):
        prepare(model, "bomb.onnx")


def test_functions_that_call_themselves_are_refused() -> None:
    model = given_graphs.functions()
    model.functions[0].node[1].CopyFrom(helper.make_node("Rectify", ["v"], ["w"], domain="own"))
    model.functions[0].opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(CheckpointError, match=r"cannot be written out|nodes written out"):
        prepare(model, "loop.onnx")


def test_pairs_that_run_in_circles_are_refused(tmp_path: Path) -> None:
    model = given_graphs.quantized()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.input[0] = "f"
    file = tmp_path / "given.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(MtlError) as caught:
        load_graph(file, (32, 32), None)
    assert "\n" not in str(caught.value)


def test_a_batch_as_large_as_memory_is_refused_before_it_is_made(tmp_path: Path) -> None:
    free = ("x", onnx.TensorProto.FLOAT, [2**22, 3, "H", "W"])
    file = tmp_path / "given.onnx"
    file.write_bytes(given_graphs.graph(batch=2**22, image=free).SerializeToString())
    with pytest.raises(CheckpointError, match="more than fit into memory"):
        load_graph(file, (32, 32), None)


@pytest.mark.parametrize("style", ["opset 18", "keras", "functions", "half"])
def test_damaged_graphs_end_in_one_line(style: str, tmp_path: Path) -> None:
    model = given_graphs.RUNS[style]()
    model.metadata_props.add(key="author", value="{}")
    content = model.SerializeToString()
    random = Random(style)
    refused = 0
    for number in range(60):
        damage = mutations.damaged_onnx if number % 2 else mutations.damaged_bytes
        file = tmp_path / "given.onnx"
        file.write_bytes(damage(content, random))
        lines = ""
        try:
            load_graph(file, (32, 32), 1)
        except MtlError as error:
            lines = str(error)
        assert "\n" not in lines
        refused += bool(lines)
    assert refused > 20
