"""Graphs that are refused before a library reads them: weights in other files, and what takes for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from PIL import Image

from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import MANIFEST, open_bundle
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.onnx_format import check as onnx_check
from mtl_deploy.runtime.onnx_format.check import check_graph
from mtl_deploy.runtime.onnx_format.cut import cut
from mtl_deploy.runtime.onnx_format.graph import read_graph

MakeBundle = Callable[..., Path]
VALUES = np.arange(4, dtype=np.float32)


def elsewhere(name: str = "weight", location: str = "weights.bin") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [4])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branch(depth: int, tensor: onnx.TensorProto | None = None) -> onnx.NodeProto:
    """An If in an If in an If, with a constant in the innermost."""
    constant = tensor or numpy_helper.from_array(VALUES, "weight")
    inner = branch(depth - 1, tensor) if depth > 1 else helper.make_node("Constant", [], ["out"], value=constant)
    graph = helper.make_graph([inner], "inner", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])])
    empty = helper.make_graph([], "empty", [], [])
    return helper.make_node("If", ["flag"], ["out"], then_branch=graph, else_branch=empty)


def in_an_initializer() -> onnx.ModelProto:
    return model(initializers=(elsewhere(),))


def in_a_constant() -> onnx.ModelProto:
    return model(helper.make_node("Constant", [], ["c"], value=elsewhere()))


def in_a_branch() -> onnx.ModelProto:
    return model(branch(3, elsewhere()))


def in_a_branchs_initializer() -> onnx.ModelProto:
    made = model(branch(1))
    made.graph.node[0].attribute[0].g.initializer.append(elsewhere())
    return made


def in_a_sparse_initializer() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add(values=elsewhere(), indices=numpy_helper.from_array(np.arange(4)), dims=[4])
    return made


def in_sparse_indices() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add(values=numpy_helper.from_array(VALUES), indices=elsewhere(), dims=[4])
    return made


def in_a_list_of_tensors() -> onnx.ModelProto:
    made = model()
    made.graph.node[0].attribute.append(AttributeProto(name="t", type=AttributeProto.TENSORS, tensors=[elsewhere()]))
    return made


def in_a_function() -> onnx.ModelProto:
    made = model()
    node = helper.make_node("Constant", [], ["c"], value=elsewhere())
    made.functions.append(helper.make_function("mine", "F", [], ["c"], [node], [helper.make_opsetid("", 17)]))
    return made


def in_training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().initialization.initializer.append(elsewhere())
    return made


def without_saying_so() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(VALUES, "weight")
    tensor.external_data.add(key="location", value="weights.bin")
    return model(initializers=(tensor,))


PLACES = [
    in_an_initializer, in_a_constant, in_a_branch, in_a_branchs_initializer, in_a_sparse_initializer, in_sparse_indices,
    in_a_list_of_tensors, in_a_function, in_training, without_saying_so,
]  # fmt: skip


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_weights_in_another_file_are_refused(make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(
        BundleError, match=r"^g\.onnx: tensor 'weight' lies in another file, 'weights\.bin'; .* into one file"
    ):
        check_graph(make().SerializeToString(), "g.onnx")


def test_weights_that_say_they_are_here_pass() -> None:
    tensor = numpy_helper.from_array(VALUES, "weight")
    tensor.data_location = TensorProto.DEFAULT
    content = model(branch(2), initializers=(tensor,)).SerializeToString()
    assert b"\x70\x00" in content
    check_graph(content, "g.onnx")


def test_a_key_that_protobuf_cuts_short_hides_nothing() -> None:
    tensor = elsewhere().SerializeToString()
    graph = b"\xaa\x80\x80\x80\x10" + bytes([len(tensor)]) + tensor  # field 5 and a bit that 32 bits do not hold
    content = b"\x08\x08\x3a" + bytes([len(graph)]) + graph
    with pytest.raises(BundleError, match="an invalid field key at byte 0"):
        check_graph(content, "g.onnx")


def externalize(folder: Path, weights: Path) -> None:
    """Move a weight of a bundle's graph into another file, as an attacker who makes the manifest fit."""
    file = folder / "fp32.onnx"
    made = onnx.load(file)
    tensor = max(made.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=weights.name)
    file.write_bytes(made.SerializeToString())
    manifest = json.loads((folder / MANIFEST).read_text())
    for artifact in manifest["artifacts"]:
        if artifact["path"] == "fp32.onnx":
            artifact["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_bundles_graph_with_weights_in_the_current_folder_is_not_run(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle()
    monkeypatch.chdir(tmp_path)
    externalize(folder, tmp_path / "weights.bin")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.InferenceSession((folder / "fp32.onnx").read_bytes(), options)  # the attack is real
    with pytest.raises(BundleError, match=r"lies in another file, 'weights\.bin'"):
        load(folder)
    with pytest.raises(BundleError, match="lies in another file"):
        load(folder / "fp32.onnx")
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match="lies in another file"):
        bundle.read(bundle.manifest.artifacts[0])
    lone = tmp_path / "lone.onnx"
    lone.write_bytes((folder / "fp32.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"lone\.onnx: tensor '.*' lies in another file"):
        load(lone)
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    assert calibrate([str(folder), "--calibration-data", str(tmp_path), "-q"]) == 2
    assert "lies in another file, 'weights.bin'" in capsys.readouterr().err


def test_nodes_that_hold_an_engine_are_refused() -> None:
    node = helper.make_node(
        "EPContext", ["x"], ["z"], name="plan", domain="com.microsoft", ep_cache_context="/tmp/engine"
    )
    with pytest.raises(BundleError, match=r"node 'plan' holds an engine \(EPContext\)"):
        check_graph(model(node).SerializeToString(), "g.onnx")


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "g.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "g.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    file.write_bytes((tmp_path / "g.ort").read_bytes())
    onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])  # read as it is
    with pytest.raises(BundleError, match="ONNX Runtime's own format"):
        load(file)


READERS: list[Callable[[bytes], object]] = [
    lambda content: check_graph(content, "g.onnx"),
    read_graph,
    lambda content: cut(content, ["out"]),
]


@pytest.mark.parametrize("reader", READERS, ids=["check", "read", "cut"])
def test_graphs_nested_too_deep_are_refused(reader: Callable[[bytes], object]) -> None:
    graph = b""
    for _ in range(2000):
        attribute = b"\x0a\x01b" + _field(6, graph)
        node = b"\x0a\x04flag\x12\x03out\x22\x02If" + _field(5, attribute)
        graph = _field(1, node) + _field(12, b"\x0a\x03out")
    with pytest.raises(BundleError, match="graphs nested more than 16 deep"):
        reader(b"\x08\x08" + _field(7, graph))


@pytest.mark.parametrize("reader", READERS, ids=["check", "read", "cut"])
def test_numbers_without_end_are_refused_at_once(reader: Callable[[bytes], object]) -> None:
    for content in (b"\xff" * 3_000_000, b"\x08" + b"\x80" * 3_000_000, _field(7, b"\x58" + b"\x80" * 3_000_000)):
        with pytest.raises(BundleError, match="a number of more than 10 bytes"):
            reader(content)


def test_more_fields_than_a_network_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_check, "MOST_FIELDS", 1000)
    check_graph(b"\x08\x08" * 1000, "g.onnx")
    with pytest.raises(BundleError, match="more than 1000 fields"):
        check_graph(b"\x08\x08" * 1001, "g.onnx")


def test_ten_bytes_are_a_number() -> None:
    negative = model(helper.make_node("Constant", [], ["c"], value_int=-1))
    assert b"\xff" * 9 + b"\x01" in negative.SerializeToString()
    check_graph(negative.SerializeToString(), "g.onnx")
    assert next(iter(read_graph(negative.SerializeToString()).nodes)).attributes["value_int"] == -1


def _field(number: int, content: bytes) -> bytes:
    length = bytearray()
    size = len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*length, size]) + content
