"""Parts beside the whole: equal to the bit, described for the manifest; parts that compute something else are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mtl_deploy.calibration.split.cut import PartFile, split
from mtl_deploy.calibration.split.measured import borders, compare
from mtl_deploy.runtime.bundle.artifact import Border
from mtl_deploy.runtime.bundle.manifest import Manifest, open_bundle
from mtl_deploy.runtime.errors import VerificationError
from tests.networks.dense_bundle import write_dense_bundle
from tests.networks.split_bundle import PARTS, SIZE, cut_bundle, uneven_graph, write_uneven_bundle

IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def scaled(part: PartFile, weight: str, factor: float) -> PartFile:
    model = onnx.load_from_string(part.content)
    found = next(each for each in model.graph.initializer if each.name == weight)
    values = (numpy_helper.to_array(found) * np.float32(factor)).astype(np.float32)
    found.CopyFrom(numpy_helper.from_array(values, weight))
    return replace(part, content=model.SerializeToString())


def test_parts_equal_the_whole_to_the_bit_and_are_timed() -> None:
    found = compare(uneven_graph(), split(uneven_graph()), [IMAGES], "fp32", threads=1, timed=IMAGES[:1])
    assert found.exact
    assert found.largest == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert found.pairs >= 11
    assert found.ratio is not None
    assert found.ratio > 0
    assert set(found.to_dict()) == {"exact", "largest_difference", "ratio", "whole_ms", "split_ms", "pairs"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parts_that_compute_something_else_are_refused(precision: str) -> None:
    parts = [scaled(part, "wc", 1.1) if part.name == "head-c" else part for part in split(uneven_graph())]
    with pytest.raises(VerificationError, match=rf"the parts of {precision}\.onnx differ from it: task 'c' by"):
        compare(uneven_graph(), parts, [IMAGES], precision, threads=1, timed=None)


def test_a_rounding_is_allowed_and_said() -> None:
    parts = [scaled(part, "wc", 1 + 2**-22) if part.name == "head-c" else part for part in split(uneven_graph())]
    found = compare(uneven_graph(), parts, [IMAGES], "fp32", threads=1, timed=None)
    assert not found.exact
    assert found.largest["c"] > 0 == found.largest["a"]


def test_the_manifest_describes_the_parts(tmp_path: Path) -> None:
    bundle = open_bundle(write_uneven_bundle(tmp_path / "a.mtl"))
    parts = {part.path: part for part in bundle.manifest.parts}
    assert set(parts) == {f"split/fp32/{name}.onnx" for name in PARTS}
    neck = parts["split/fp32/neck-1.onnx"]
    assert (neck.role, neck.tasks, neck.backend, neck.precision) == ("part", ("b", "c"), "onnxruntime", "fp32")
    assert neck.inputs == (
        Border("stage1", "float32", (1, 4, 8, 12), (1, 0, 0, 0)),
        Border("stage2", "float32", (1, 8, 4, 6), (1, 0, 0, 0)),
    )
    assert neck.outputs[0].shape(4) == (5, 4, 8, 12)
    assert neck.outputs[0].size_in_bytes(1) == 4 * 4 * 8 * 12
    for part in parts.values():
        assert len(bundle.read(part)) == part.size_bytes  # checked against its SHA-256
    again = Manifest.from_dict(bundle.manifest.to_dict(), "again")
    assert again == bundle.manifest
    assert bundle.manifest.files == (*bundle.manifest.artifacts, *bundle.manifest.parts)


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    bundle = open_bundle(write_uneven_bundle(tmp_path / "a.mtl", batch=2))
    backbone = bundle.manifest.parts[0]
    assert (backbone.batch_min, backbone.batch_max) == (2, 2)
    assert backbone.inputs == (Border("image", "uint8", (2, *SIZE, 3), (0, 0, 0, 0)),)
    assert backbone.inputs[0].size_in_bytes(2) == SIZE[0] * SIZE[1] * 3


def test_a_manifest_without_parts_says_nothing_of_them(tmp_path: Path) -> None:
    manifest = open_bundle(write_dense_bundle(tmp_path / "a.mtl")).manifest
    assert manifest.parts == ()
    assert "parts" not in manifest.to_dict()


def test_a_border_where_the_batch_is_folded() -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Reshape", ["image", "pairs"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["features"]),
        helper.make_node("Neg", ["features"], ["a"]),
        helper.make_node("Abs", ["features"], ["b"]),
    ]
    weights = {"pairs": np.array([-1, 2], np.int64), "w": np.eye(2, dtype=np.float32)}
    shapes = {"image": ["batch", 4], "a": ["rows", 2], "b": ["rows", 2]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "folded", values[:1], values[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    found = borders(split(model.SerializeToString()), np.zeros((2, 4), np.float32), None, 1)
    assert found["features"] == Border("features", "float32", (2, 2), (2, 0))
    assert found["features"].shape(3) == (8, 2)


def test_free_sizes(tmp_path: Path) -> None:
    parts = open_bundle(cut_bundle(write_dense_bundle(tmp_path / "a.mtl", multiple=4))).manifest.parts
    assert parts[0].outputs == (Border("features", "float32", (1, 8, 9, 13), (1, 0, 0, 0)),)
