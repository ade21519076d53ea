"""``--check-target`` on the graphs of a bundle: what is said where one reads everything, and where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.cli import main
from mtl_deploy.export.targets.check import check_targets, describe_targets, read_by
from mtl_deploy.export.targets.linter import find_target
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.errors import OptionError

MakeBundle = Callable[..., Path]


@dataclass(frozen=True)
class Graph:
    path: str
    precision: str = "fp32"


def graph_of(*operators: str, opset: int = 17) -> bytes:
    """Return a graph that applies operators one after another."""
    names = ["x", *(f"t{number}" for number in range(len(operators)))]
    nodes = [
        onnx.helper.make_node(op, [a], [b], name=f"n_{b}")
        for op, a, b in zip(operators, names, names[1:], strict=False)
    ]
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4])  # noqa: E731
    graph = onnx.helper.make_graph(nodes, "g", [value("x")], [value(names[-1])])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]).SerializeToString()


@pytest.fixture
def int8_bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A bundle with INT8 graphs as mtl-calibrate makes them, for TensorRT 10 and later."""
    bundle = make_bundle(work=2)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8))
    images = ["--calibration-data", str(tmp_path / "images.npy"), "--calibration-method", "minmax", "--threads", "1"]
    assert calibrate([str(bundle), *images, "-q"]) == 0
    return bundle


def test_an_int8_bundle_names_what_makes_graphs_for_an_old_target_in_one_line(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([str(int8_bundle), "--engine", "none", "--check-target", "jetpack-6.0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("jetpack-6.0") == 1
    assert "mtl-calibrate BUNDLE --calibration-data PHOTOS/ --opset 17" in line
    assert len(line) < 500

    images = ["--calibration-data", str(tmp_path / "images.npy"), "--calibration-method", "minmax", "--threads", "1"]
    assert calibrate([str(int8_bundle), *images, "-q", "--opset", "17"]) == 0  # what the line says helps
    assert main([str(int8_bundle), "--engine", "none", "--check-target", "jetpack-6.0"]) == 0


def test_graphs_for_processors_are_left_out_and_said_to_be(
    int8_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([str(int8_bundle), "--engine", "none", "--check-target", "jetpack-6.2,tensorrt-10.13"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Target jetpack-6.2 (TensorRT 10.3) reads all 12 graphs.")
    assert lines[start + 1] == "Target tensorrt-10.13 (TensorRT 10.13) reads all 12 graphs."
    assert lines[start + 2].startswith("  int8-cpu.onnx and 3 more: not checked")
    assert start < min(number for number, line in enumerate(lines) if line.startswith("file "))  # before the tables


def test_one_problem_of_many_nodes_and_graphs_is_one_line() -> None:
    graphs = [Graph("fp32.onnx"), Graph("separate/a.onnx"), Graph("separate/b.onnx")]
    content = graph_of(*["Mish"] * 40)
    with pytest.raises(OptionError) as caught:
        check_targets(graphs, lambda graph: content, [find_target("jetpack-6.0")])
    assert (
        "fp32.onnx and 2 more graphs: node 'n_t0' (Mish) and 39 more: TensorRT 8.6.2 does not read the operator"
        in str(caught.value)
    )
    assert str(caught.value).count("jetpack-6.0") == 1


def test_different_problems_stay_apart_and_each_target_has_its_own() -> None:
    content = graph_of("Mish", "Gelu", opset=20)
    with pytest.raises(OptionError) as caught:
        check_targets(
            [Graph("fp32.onnx")], lambda graph: content, [find_target("jetpack-5.1"), find_target("jetpack-6.0")]
        )
    text = str(caught.value)
    assert "jetpack-5.1: fp32.onnx: opset 20" in text
    assert "export again with --opset 17" in text
    assert "mtl-calibrate" not in text  # nothing of it is INT8
    assert text.endswith("more")


def test_graphs_that_came_after_the_check_are_said_to_be_unchecked() -> None:
    first, second = Graph("fp32.onnx"), Graph("int8.onnx", "int8")
    records = read_by([find_target("jetpack-6.2")], [first])
    assert describe_targets(records, [first]) == "Target jetpack-6.2 (TensorRT 10.3) reads its graph.\n"
    assert "reads 1 of 2 graphs; others came later" in describe_targets(records, [first, second])
    assert describe_targets([], [first]) == ""


def test_a_note_on_what_is_read_differently_stays_a_note(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(precisions=("fp32",), separate=False)
    model = onnx.load(str(bundle / "fp32.onnx"))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    gelu = onnx.helper.make_node("Gelu", [model.graph.output[0].name], ["unused"], name="odd", domain="com.microsoft")
    model.graph.node.append(gelu)
    content = model.SerializeToString()
    notes = check_targets([Graph("fp32.onnx")], lambda graph: content, [find_target("tensorrt-10.3")])
    (note,) = notes
    assert "note: node 'odd' (Gelu): its domain is com.microsoft" in note
    manifest = open_bundle(bundle).manifest
    provenance = manifest.provenance | {
        "notes": [note],
        "targets": read_by([find_target("tensorrt-10.3")], manifest.artifacts),
    }
    write_manifest(bundle, replace(manifest, provenance=provenance))
    assert main([str(bundle), "--engine", "none", "--check-target", "tensorrt-10.13"]) == 0
    out = capsys.readouterr().out
    assert "Target tensorrt-10.3 (TensorRT 10.3) reads its graph." in out  # what was checked earlier is kept
    assert "Target tensorrt-10.13 (TensorRT 10.13) reads its graph." in out
    assert f"note: {note}" in out
