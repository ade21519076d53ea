from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.onnx_format.graph import ELEMENT_TYPES, OnnxGraph, OnnxTensor, OnnxValue, read_graph

value = helper.make_tensor_value_info


def expected_value(info: onnx.ValueInfoProto) -> OnnxValue:
    kind = info.type.tensor_type
    shape: tuple[int | str | None, ...] | None = None
    if info.type.HasField("tensor_type") and kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in kind.shape.dim)
    return OnnxValue(info.name, ELEMENT_TYPES[kind.elem_type] if kind.elem_type else None, shape)


def expected_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from graph.node
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from expected_nodes(inner)


def assert_agrees(model: onnx.ModelProto) -> OnnxGraph:
    """Hold what is read against what the onnx package reads."""
    graph = read_graph(model.SerializeToString())
    assert graph.opsets == {one.domain: one.version for one in model.opset_import}
    assert list(graph.inputs) == [expected_value(one) for one in model.graph.input]
    assert list(graph.outputs) == [expected_value(one) for one in model.graph.output]
    assert list(graph.values) == [expected_value(one) for one in model.graph.value_info]
    assert set(graph.initializers) == {one.name for one in model.graph.initializer}
    for one in model.graph.initializer:
        assert_same_tensor(graph.initializers[one.name], one)
    own, theirs = list(graph.all_nodes()), list(expected_nodes(model.graph))
    assert len(own) == len(theirs)
    for node, other in zip(own, theirs, strict=True):
        assert (node.name, node.op_type, node.domain) == (other.name, other.op_type, other.domain)
        assert (list(node.inputs), list(node.outputs)) == (list(other.input), list(other.output))
        plain = [one for one in other.attribute if one.type not in (one.GRAPH, one.GRAPHS)]
        assert set(node.attributes) == {one.name for one in plain}
        for one in plain:
            assert_same_attribute(node.attributes[one.name], helper.get_attribute_value(one))
    types = {one.name: one.element_type for one in (*graph.values, *graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        assert node.output_types == tuple(types.get(name) for name in node.outputs)
    return graph


def assert_same_tensor(tensor: OnnxTensor, other: onnx.TensorProto) -> None:
    assert (tensor.name, tensor.shape) == (other.name, tuple(other.dims))
    assert tensor.element_type == ELEMENT_TYPES[other.data_type]
    array = numpy_helper.to_array(other)
    values = tensor.values()
    assert values is not None
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)


def assert_same_attribute(own: Any, other: Any) -> None:
    if isinstance(other, onnx.TensorProto):
        assert_same_tensor(own, other)
    elif isinstance(other, (list, tuple)):
        assert list(own) == [one.decode() if isinstance(one, bytes) else one for one in other]
    else:
        assert own == (other.decode() if isinstance(other, bytes) else other)


def test_an_exported_bundle_is_read_as_onnx_reads_it(article_bundle: Path) -> None:
    for path in sorted(article_bundle.rglob("*.onnx")):
        graph = assert_agrees(onnx.load(path))
        assert graph.opset == 17
        assert graph.inputs[0].element_type == "uint8"


def test_every_node_of_an_exported_graph_says_what_it_computes_in(article_bundle: Path) -> None:
    graph = read_graph((article_bundle / "fp16.onnx").read_bytes())
    kinds = {node.op_type: node.output_types[0] for node in graph.nodes}
    assert all(node.output_types[0] for node in graph.nodes)
    assert kinds["Conv"] == "float16"
    assert kinds["Softmax"] == "float32"


def test_a_bundle_made_without_the_exporter_is_read(make_bundle: Callable[..., Path]) -> None:
    for path in make_bundle().rglob("*.onnx"):
        assert_agrees(onnx.load(path))


def branches() -> onnx.ModelProto:
    def branch(name: str, operator: str, kind: int) -> onnx.GraphProto:
        inner = helper.make_tensor_value_info("t", kind, ["n"])
        weight = numpy_helper.from_array(np.float32([2]), f"{name}_weight")
        nodes = [helper.make_node(operator, ["x"], ["s"]), helper.make_node("Cast", ["s"], ["t"], to=kind)]
        return helper.make_graph(nodes, name, [], [inner], [weight])

    graph = helper.make_graph(
        [
            helper.make_node(
                "If",
                ["flag"],
                ["y"],
                name="choose",
                then_branch=branch("then", "Neg", TensorProto.FLOAT16),
                else_branch=branch("else", "Abs", TensorProto.BFLOAT16),
            )
        ],
        "branches",
        [value("x", TensorProto.FLOAT, ["n"]), value("flag", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_branches_are_read_with_types_of_their_own() -> None:
    graph = assert_agrees(branches())
    assert [len(inner.initializers) for inner in graph.walk()] == [0, 1, 1]
    assert [node.op_type for node in graph.all_nodes()] == ["If", "Abs", "Cast", "Neg", "Cast"]
    otherwise, then = graph.nodes[0].graphs
    assert then.nodes[0].input_types == ("float32",)  # from outside
    assert then.nodes[1].output_types == ("float16",)
    assert otherwise.nodes[1].output_types == ("bfloat16",)  # of the same name, in another graph
    assert then.nodes[0].output_types == (None,)


def test_local_functions_are_read() -> None:
    function = helper.make_function(
        "me", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="me")
    graph = helper.make_graph([node], "g", [value("x", 1, [2])], [value("y", 1, [2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("me", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    read = assert_agrees(model)
    assert [node.op_type for node in read.functions["me", "Twice"]] == ["Add"]


def test_all_of_onnx_types_have_their_name() -> None:
    for name, number in onnx.TensorProto.DataType.items():
        if number:
            other = helper.tensor_dtype_to_np_dtype(number)
            assert ELEMENT_TYPES[number] == ("string" if name == "STRING" else str(other)), name


def test_weights_in_other_files_have_no_values(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", [value("x", 1, [1, 2])], [value("y", 1, [1, 2])], [weight])
    )
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    tensor = read_graph((tmp_path / "m.onnx").read_bytes()).initializers["w"]
    assert (tensor.shape, tensor.element_type, tensor.values()) == ((2, 2), "float32", None)


def test_a_tensor_of_the_wrong_length_is_an_error() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], np.float32([1, 2]).tobytes(), raw=True)
    weight.dims[0] = 3
    graph = helper.make_graph([], "g", [], [], [weight])
    tensor = read_graph(helper.make_model(graph).SerializeToString()).initializers["w"]
    with pytest.raises(BundleError, match="tensor 'w'"):
        tensor.values()


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"not an onnx file at all", b"\x3a\x05ab"])
def test_what_is_no_onnx_file_is_an_error(content: bytes) -> None:
    with pytest.raises(BundleError, match="not an ONNX file"):
        read_graph(content)


NAMES = st.text(max_size=8)
ELEMENTS = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32]
ELEMENTS += [TensorProto.INT64, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UINT16, TensorProto.UINT64]


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(draw(st.sampled_from(ELEMENTS))))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    raw = draw(st.binary(min_size=int(np.prod(shape)) * kind.itemsize, max_size=int(np.prod(shape)) * kind.itemsize))
    array = (np.frombuffer(raw, np.uint8) % 2).astype(bool) if kind.kind == "b" else np.frombuffer(raw, kind)
    if kind.kind == "f":
        array = np.nan_to_num(array)
    tensor = numpy_helper.from_array(array.reshape(shape), draw(NAMES))
    if draw(st.booleans()) and kind.kind != "f":  # the other way to store a tensor
        tensor = helper.make_tensor(tensor.name, tensor.data_type, shape, array.ravel().tolist())
    return tensor


ATTRIBUTES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=8),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    st.lists(st.text(max_size=4), min_size=1, max_size=3),
    tensors(),
)
VALUES = st.builds(
    helper.make_tensor_value_info,
    NAMES,
    st.sampled_from(sorted(ELEMENT_TYPES)),
    st.one_of(st.none(), st.lists(st.one_of(st.integers(0, 2**40), st.text(min_size=1, max_size=3)), max_size=4)),
)
NODES = st.builds(
    lambda kind, inputs, outputs, name, attributes: helper.make_node(kind, inputs, outputs, name=name, **attributes),
    NAMES,
    st.lists(NAMES, max_size=3),
    st.lists(NAMES, max_size=3),
    NAMES,
    st.dictionaries(st.text("abcd", min_size=1, max_size=3), ATTRIBUTES, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NODES, max_size=4),
    st.lists(VALUES, max_size=3, unique_by=lambda one: one.name),
    st.lists(tensors(), max_size=3, unique_by=lambda one: one.name),
)
def test_random_graphs_are_read_as_onnx_reads_them(
    nodes: list[onnx.NodeProto], values: list[onnx.ValueInfoProto], weights: list[onnx.TensorProto]
) -> None:
    graph = helper.make_graph(nodes, "g", values, [], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("me", 3)])
    own = read_graph(model.SerializeToString())
    types = {one.name: one.element_type for one in own.inputs} | {
        name: tensor.element_type
        for name, tensor in own.initializers.items()
        if name not in {v.name for v in own.inputs}
    }
    assert all(node.output_types == tuple(types.get(name) for name in node.outputs) for node in own.nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert len(own.nodes) == len(nodes)
    for node, other in zip(own.nodes, nodes, strict=True):
        assert (list(node.inputs), list(node.outputs), node.op_type) == (
            list(other.input),
            list(other.output),
            other.op_type,
        )
        for one in other.attribute:
            assert_same_attribute(node.attributes[one.name], helper.get_attribute_value(one))
    assert list(own.inputs) == [expected_value(one) for one in values]
    for one in weights:
        assert_same_tensor(own.initializers[one.name], one)


@given(st.binary(min_size=1, max_size=60))
def test_other_bytes_are_refused_or_read_but_never_hang(content: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert isinstance(read_graph(content), OnnxGraph)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_file_is_refused_or_read(position: int, byte: int) -> None:
    content = bytearray(branches().SerializeToString())
    content[position % len(content)] = byte
    with contextlib.suppress(BundleError):
        graph = read_graph(bytes(content))
        for inner in graph.walk():
            assert isinstance(inner, OnnxGraph)
            for name, tensor in inner.initializers.items():
                values = tensor.values()
                assert values is None or values.shape == tensor.shape, name
