"""Bundles with more or fewer heads than the network they are made of."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from checkpoints import save, small_network
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.export.baselines.synthetic_heads import find_source, main, synthetic_costs, with_heads
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.graph.passes import infer_shapes, merge_copies
from mtl_deploy.export.graph.split import sharing
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import Artifact, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.errors import BundleError, TraceError
from tests.conftest import MakeBundle

PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
HEAD = 512 * 8 + 8 * 5  # multiply-adds of the largest head
Made = dict[tuple[str, int], Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of the article's layout, heads of sizes 1, 1 and 5, at every precision."""
    folder = tmp_path_factory.mktemp("source")
    checkpoint = save(folder, small_network().state_dict())
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    options = ["--image-size", "32x32", "--engine", "none", "--threads", "1", "-q"]
    data = ["--calibration-data", str(folder / "images.npy"), "--calibration-method", "minmax"]
    assert export([str(checkpoint), *options, *data, "-o", str(folder / "net.mtl")]) == 0
    return folder / "net.mtl"


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    bundles = {(name, 3): folder / f"{name}.mtl" for name in PRECISIONS} | {
        ("fp32", n): folder / f"{n}.mtl" for n in (1, 8)
    }
    for (precision, count), target in bundles.items():
        assert main([str(source), str(target), "--heads", str(count), "--precision", precision]) == 0
    return bundles


def graph(bundle: Path, path: str) -> onnx.ModelProto:
    return onnx.load(bundle / path)


def run(path: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    with load(path, providers=["CPU"], threads=1) as model:
        return model(batch)


def shared_of(bundle: Path) -> Artifact:
    return next(artifact for artifact in open_bundle(bundle).manifest.artifacts if artifact.role == "shared")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_copy_is_nearly_the_largest_head_and_alone_the_same(source: Path, made: Made, precision: str) -> None:
    bundle = made[precision, 3]
    batch = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    original = run(source / f"{precision}.onnx", batch)["race"]
    found = run(bundle / shared_of(bundle).path, batch)
    assert list(found) == ["head1", "head2", "head3"]
    for name, values in found.items():
        assert 0 < np.abs(values - original).max() < 0.05  # probabilities
        path = f"separate/{name}.onnx" if precision == "fp32" else f"separate/{name}.{precision}.onnx"
        np.testing.assert_allclose(run(bundle / path, batch)[name], values, atol=1e-6)
    first, second, third = found.values()
    assert np.abs(first - second).max() > 0
    assert np.abs(second - third).max() > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_copies_keep_the_types_and_the_quantization_of_the_head(source: Path, made: Made, precision: str) -> None:
    def head(model: onnx.ModelProto, outputs: list[str]) -> tuple[Counter[str], Counter[tuple[int, ...]]]:
        whole = ir.from_proto(model)
        own = {name: set() for name in outputs}
        for output in whole.graph.outputs:
            waiting = [output.producer()]
            while waiting:
                node = waiting.pop()
                if node is not None and node not in own[output.name]:
                    own[output.name].add(node)
                    waiting += [value.producer() for value in node.inputs if value is not None]
        times = Counter(node for nodes in own.values() for node in nodes)
        nodes = [node for name in outputs[-1:] for node in own[name] if times[node] == 1]
        weights = [value for node in nodes for value in node.inputs if value is not None and value.is_initializer()]
        return Counter(node.op_type for node in nodes), Counter((int(v.dtype), *map(int, v.shape)) for v in weights)

    expected = head(graph(source, f"{precision}.onnx"), ["age", "gender", "race"])
    assert head(graph(made[precision, 3], f"{precision}.onnx"), ["head1", "head2", "head3"]) == expected
    assert ("DequantizeLinear" in expected[0]) == precision.startswith("int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_optimizer_merges_the_copies(made: Made, precision: str) -> None:
    model = ir.from_proto(graph(made[precision, 3], f"{precision}.onnx"))
    infer_shapes(model)
    layers = [node for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    merged = merge_copies(model)
    assert merged.repeated_layers == 0
    assert len([node for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]) == len(layers)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_manifest_says_what_the_graphs_cost(made: Made, count: int) -> None:
    bundle = open_bundle(made["fp32", count])
    manifest = bundle.manifest
    model = ir.from_proto(graph(bundle.path, "fp32.onnx"))
    infer_shapes(model)
    found = sharing(model)
    shared = shared_of(bundle.path)
    assert (shared.multiply_adds, shared.parameters) == (found.shared.multiply_adds, found.shared.parameters)
    names = [task.name for task in manifest.tasks]
    assert names == [f"head{number}" for number in range(1, count + 1)]
    for artifact in manifest.artifacts:
        content = bundle.read(artifact)  # checks its SHA-256
        assert artifact.size_bytes == len(content)
        if artifact.role == "separate":
            cost = found.separate[artifact.tasks[0]]
            assert (artifact.multiply_adds, artifact.parameters) == (cost.multiply_adds, cost.parameters)
    assert manifest.sharing["ideal_ratio"] == round(found.ideal_ratio, 4)
    assert manifest.provenance["synthetic"]["heads"] == count
    assert "their outputs mean nothing" in manifest.provenance["notes"][0]


def test_each_further_head_costs_the_same(source: Path) -> None:
    found = find_source(open_bundle(source), "fp32")
    costs = [synthetic_costs(found, [f"head{n}" for n in range(count)]).shared for count in (1, 2, 3)]
    assert found.task.name == "race"
    assert found.head.multiply_adds == HEAD
    assert costs[1].multiply_adds - costs[0].multiply_adds == costs[2].multiply_adds - costs[1].multiply_adds == HEAD
    assert costs[1].parameters - costs[0].parameters == HEAD + 8 + 5


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-cpu"])
def test_precisions_cost_the_same_multiply_adds_and_parameters(made: Made, precision: str) -> None:
    expected, found = shared_of(made["fp32", 3]), shared_of(made[precision, 3])
    assert (found.multiply_adds, found.parameters) == (expected.multiply_adds, expected.parameters)


def test_the_same_seed_gives_the_same_files(source: Path, made: Made, tmp_path: Path) -> None:
    def files(bundle: Path) -> dict[str, str]:
        return {artifact.path: artifact.sha256 for artifact in open_bundle(bundle).manifest.artifacts}

    assert main([str(source), str(tmp_path / "again.mtl"), "--heads", "3"]) == 0
    assert files(tmp_path / "again.mtl") == files(made["fp32", 3])
    assert main([str(source), str(tmp_path / "again.mtl"), "--heads", "3", "--seed", "1", "--force"]) == 0
    assert files(tmp_path / "again.mtl") != files(made["fp32", 3])


def test_heads_are_copied_whole_and_the_backbone_is_not(source: Path, made: Made) -> None:
    def count(bundle: Path, operator: str) -> int:
        return sum(node.op_type == operator for node in graph(bundle, "fp16.onnx").graph.node)

    assert [count(source, "Gemm"), count(made["fp16", 3], "Gemm")] == [6, 6]
    assert count(source, "Conv") == count(made["fp16", 3], "Conv")
    tasks = open_bundle(made["fp16", 3]).manifest.tasks
    assert [task.labels for task in tasks] == [("White", "Black", "Asian", "Indian", "Other")] * 3


@pytest.mark.parametrize("count", ["0", "9"])
def test_numbers_beyond_eight_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    assert main([str(source), str(tmp_path / "x.mtl"), "--heads", count]) == 2
    assert f"error: --heads {count}: use 1 to 8" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "x"), "--heads", "2"]) == 2
    assert "a bundle's name ends with .mtl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_is_not_there_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match="no shared int8 graph; choose another --precision"):
        find_source(open_bundle(make_bundle()), "int8")


def headless(branch: bool) -> bytes:
    """Return a graph with a head that is a sigmoid, and one that is another, or a branch and a product."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    branches = {
        name: helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], name, [], [value])
        for name in ("then_branch", "else_branch")
    }
    last = [helper.make_node("Sigmoid", ["image"], ["age"])]
    if branch:
        last = [helper.make_node("If", ["yes"], ["b"], **branches), helper.make_node("MatMul", ["image", "b"], ["age"])]
    nodes = [helper.make_node("Sigmoid", ["image"], ["gender"]), *last]
    graph = helper.make_graph(
        nodes,
        "headless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("age", "gender")],
        [numpy_helper.from_array(np.ones((1, 1), np.float32), "w"), numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(("branch", "reason"), [(False, "no head has a convolution"), (True, "has control flow")])
def test_heads_that_cannot_be_copied_are_named(make_bundle: MakeBundle, branch: bool, reason: str) -> None:
    bundle = open_bundle(make_bundle(precisions=("fp32",), separate=False))
    content = headless(branch)
    (bundle.path / "fp32.onnx").write_bytes(content)
    artifact = replace(
        bundle.manifest.artifacts[0], sha256=hashlib.sha256(content).hexdigest(), tasks=("age", "gender")
    )
    signature = bundle.manifest.signature.subset(["age", "gender"])
    write_manifest(bundle.path, replace(bundle.manifest, artifacts=(artifact,), signature=signature))
    with pytest.raises(TraceError, match=reason):
        with_heads(find_source(open_bundle(bundle.path), "fp32"), 2)


def test_one_task_alone_is_refused(made: Made) -> None:
    with pytest.raises(TraceError, match="only one task"):
        find_source(open_bundle(made["fp32", 1]), "fp32")


def test_heads_that_give_maps_are_copied_too(tmp_path: Path) -> None:
    from dense_networks import Scenes

    checkpoint, folder = save(tmp_path, Scenes().state_dict()), tmp_path / "scenes.mtl"
    options = ["--model", "dense_networks:Scenes", "--image-size", "32x48", "--engine", "none", "--threads", "1", "-q"]
    tasks = ["--task", "seg=segmentation:a,b,c,d,e", "--task", "depth=depth:m", "--task", "normals=normals"]
    assert export([str(checkpoint), *options, *tasks, "--precision", "fp32", "-o", str(folder)]) == 0
    assert main([str(folder), str(tmp_path / "two.mtl"), "--heads", "2"]) == 0
    batch = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    original, found = run(folder, batch)["seg"], run(tmp_path / "two.mtl", batch)
    assert list(found) == ["head1", "head2"]
    for values in found.values():
        assert (values.dtype, values.shape) == (original.dtype, original.shape)
        assert np.mean(values == original) > 0.9
    assert [task.kind for task in open_bundle(tmp_path / "two.mtl").manifest.tasks] == ["segmentation"] * 2
