"""Each style has ranges, and a method, of its own; what graphs are compared on is spread over the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.accuracy.evaluate import relative_errors
from mtl_deploy.calibration.accuracy.run import run_graph
from mtl_deploy.calibration.cli import main
from mtl_deploy.calibration.int8.graphs import STYLES, Int8Graphs
from mtl_deploy.calibration.int8.qdq_placement import quantizable
from mtl_deploy.calibration.observe.ranges import METHODS, Range, choose
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.manifest import Artifact, Manifest, open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.writing import write_manifest
from mtl_deploy.runtime.errors import WorkError

AGE = Task("age", "regression", size=1)
TASKS = (AGE, Task("gender", "binary", size=1), Task("race", "multiclass", size=5))
SIZE = Preprocessing(16, 16)


def pictures(count: int) -> np.ndarray:
    """Ever brighter ones, as names that start with a number can order them."""
    random = np.random.default_rng(0)
    brightness = np.linspace(0.05, 1, count)[:, None, None, None]
    return (random.integers(0, 256, (count, 16, 16, 3)) * brightness).astype(np.uint8)


@pytest.fixture(scope="module")
def graphs(multi_head: Callable[..., onnx.ModelProto]) -> Int8Graphs:
    model = multi_head()
    next(node for node in model.graph.node if node.name == "n_age_raw").input.append(
        "bias"
    )  # the mean is corrected there
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "bias"))
    made = Int8Graphs(
        model.SerializeToString(), pictures(256), Signature(TASKS, SIZE), None, Int8Options(threads=1), ["age"]
    )
    made.ranges = made.find_ranges()
    return made


@pytest.mark.parametrize("method", METHODS)
def test_each_style_has_ranges_chosen_for_its_integers(graphs: Int8Graphs, method: str) -> None:
    histograms = graphs.histograms()
    for style, symmetric in (("tensorrt", True), ("cpu", False)):
        built = graphs.build(style, method)
        assert built.details["ranges"]
        for name, ends in built.details["ranges"].items():
            assert Range(**ends) == choose(histograms[name], method, symmetric=symmetric)
    differ = [graphs.ranges["cpu"][method][name] != one for name, one in graphs.ranges["tensorrt"][method].items()]
    assert any(differ) == (method != "minmax")


def test_scales_in_the_file_are_those_of_u8(graphs: Int8Graphs) -> None:
    model = onnx.load_from_string(graphs.build("cpu", "mse").content)
    scales = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    found = {
        node.input[0]: float(scales[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear"
    }
    ranges = graphs.ranges["cpu"]["mse"]
    assert found
    for name, scale in found.items():
        if name in ranges:
            assert scale == pytest.approx(ranges[name].asymmetric()[0])


def test_auto_takes_the_best_method_of_each_style(graphs: Int8Graphs) -> None:
    methods, errors = graphs.choose_methods()
    assert errors.keys() == set(STYLES)
    assert errors["tensorrt"] != errors["cpu"]
    for style in STYLES:
        assert errors[style].keys() == set(METHODS)
        assert errors[style][methods[style]] == min(errors[style].values())
        runnable = {method: graphs.build(style, method).runnable for method in METHODS}
        own = relative_errors(graphs.content, runnable, graphs.judged, graphs.signature, threads=1)
        assert errors[style] == pytest.approx(own)


def test_a_graph_that_was_judged_is_not_run_again(graphs: Int8Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Int8Graphs(graphs.content, graphs.images, graphs.signature, None, graphs.options, ["age"])
    made.ranges, made.observed = graphs.ranges, graphs.observed
    usual = {style: made.build(style, "mse") for style in STYLES}
    made.choose_methods()
    monkeypatch.setattr(Int8Graphs, "_run", lambda *_: pytest.fail("a graph was run"))
    for style in STYLES:
        built = made.build(style, "mse")
        shift = built.details["corrected"]["age"]
        assert shift == pytest.approx(usual[style].details["corrected"]["age"], rel=1e-6)
        assert shift != [0.0]


def test_a_method_that_was_asked_for_serves_both_styles(multi_head: Callable[..., onnx.ModelProto]) -> None:
    options = Int8Options("entropy", threads=1)
    made = Int8Graphs(multi_head().SerializeToString(), pictures(8), Signature(TASKS, SIZE), None, options)
    assert made.find_ranges().keys() == set(STYLES)
    assert made.choose_methods() == ({"tensorrt": "entropy", "cpu": "entropy"}, {})


def test_the_worst_ranges_are_named_a_style(graphs: Int8Graphs) -> None:
    rows = graphs.coverage({"tensorrt": "entropy", "cpu": "mse"})
    assert {row["style"] for row in rows} == set(STYLES)
    assert max(row["unused"] for row in rows if row["style"] == "cpu") < 0.5
    assert (
        max(row["unused"] for row in rows if row["style"] == "tensorrt") < 0.5
    )  # the side that a ReLU cannot have is no loss


def test_the_mean_is_corrected_on_images_from_all_over(graphs: Int8Graphs) -> None:
    assert graphs.judged.mean() == pytest.approx(graphs.images.mean(), rel=0.05)
    assert graphs.images[:64].mean() < 0.4 * graphs.images.mean()
    plain = Int8Graphs(graphs.content, graphs.images, graphs.signature, None, graphs.options)
    plain.ranges, plain.observed = graphs.ranges, graphs.observed
    ages = [
        run_graph(content, graphs.images, SIZE, outputs=["age"])["age"].astype(np.float64)
        for content in (graphs.content, plain.build("cpu", "minmax").runnable)
    ]
    lost = (ages[0] - ages[1]).ravel()
    (shift,) = graphs.build("cpu", "minmax").details["corrected"]["age"]
    noise = lost.std() / np.sqrt(64)
    assert abs(shift - lost.mean()) < 3 * noise
    assert abs(lost[:64].mean() - lost.mean()) > 3 * noise  # what the first images would have said


def upsampling(sketch: Any) -> onnx.ModelProto:
    """One channel 60 times above the others in front of a transposed convolution, which undoes it."""
    graph = sketch()
    stem = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="stem"), name="stem_relu")
    factors = np.where(np.arange(8) == 3, 60, 1).astype(np.float32).reshape(1, 8, 1, 1)
    uneven = graph.node("Mul", stem, graph.weight("factors", factors), name="uneven")
    kernel = 0.2 * np.random.default_rng(1).standard_normal((8, 8, 2, 2)) / factors.reshape(8, 1, 1, 1)
    up = graph.node(
        "ConvTranspose", uneven, graph.weight("up.weight", kernel.astype(np.float32)), name="up", strides=[2, 2]
    )
    hidden = graph.gemm(graph.features(graph.node("Relu", up, name="up_relu")), (8, 8), name="hidden", scale=3)
    graph.gemm(graph.node("Relu", hidden, name="hidden_relu"), (8, 1), name="age", scale=3)
    return graph.model({"age": ("batch", 1)})


def write(folder: Path, model: onnx.ModelProto, signature: Signature) -> Path:
    onnx.helper.set_model_props(model, {METADATA_KEY: signature.to_json()})
    content = model.SerializeToString()
    folder.mkdir()
    (folder / "fp32.onnx").write_bytes(content)
    shared = Artifact(
        path="fp32.onnx",
        role="shared",
        tasks=("age",),
        precision="fp32",
        backend="onnxruntime",
        batch_min=1,
        batch_max=None,
        opset=18,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        parameters=1000,
        multiply_adds=1000,
    )
    write_manifest(folder, Manifest(folder.stem, signature, (shared,)))
    return folder


def test_layers_of_one_style_alone_can_be_kept(sketch: Any) -> None:
    model = upsampling(sketch)
    assert quantizable(model) == ("n_stem", "n_up", "n_hidden")
    made = Int8Graphs(model.SerializeToString(), pictures(8), Signature((AGE,), SIZE), None, Int8Options(threads=1))
    made.ranges = made.find_ranges()
    for style in STYLES:
        kept = onnx.load_from_string(made.build(style, "minmax", quantizable(model)).content)
        assert not [node for node in kept.graph.node if "Quantize" in node.op_type]


def test_a_budget_keeps_a_layer_that_tensorrt_alone_quantizes(sketch: Any, tmp_path: Path) -> None:
    model, images = upsampling(sketch), pictures(240)
    made = Int8Graphs(model.SerializeToString(), images, Signature((AGE,), SIZE), None, Int8Options(threads=1), ["age"])
    made.ranges = made.find_ranges()
    exact = run_graph(made.content, images, SIZE)["age"]
    lost = {
        style: float(np.abs(run_graph(made.build(style, "minmax").runnable, images, SIZE)["age"] - exact).mean())
        for style in STYLES
    }
    assert lost["tensorrt"] > 5 * lost["cpu"]
    bundle = write(tmp_path / "up.mtl", model, made.signature)
    np.save(tmp_path / "images.npy", images)
    command = [str(bundle), "--calibration-data", str(tmp_path / "images.npy"), "-q", "--threads", "1"]
    command += ["--calibration-method", "minmax", "-o", str(tmp_path / "kept.mtl")]
    assert main([*command, "--max-drop", f"age={2 * lost['cpu'] + 0.1 * lost['tensorrt']}"]) == 0
    manifest = open_bundle(tmp_path / "kept.mtl").manifest
    assert manifest.calibration["kept"] == ["n_up"]
    assert differences(tmp_path / "kept.mtl")["int8"] < 0.3 * lost["tensorrt"]


def differences(bundle: Path) -> dict[str, float]:
    cells = open_bundle(bundle).manifest.accuracy["cells"]
    return {cell["variant"]: cell["mean_error"] for cell in cells if cell["variant"] != "fp32"}


def test_a_graph_of_heads_alone_says_why_nothing_of_it_is_int8(sketch: Any) -> None:
    graph = sketch(size=16)
    features = graph.features(graph.normalised())
    for task, size in (("age", 1), ("gender", 1), ("race", 5)):
        graph.gemm(features, (3, size), name=task)
    model = graph.model({"age": ("batch", 1), "gender": ("batch", 1), "race": ("batch", 5)})
    heads = Int8Graphs(
        model.SerializeToString(), pictures(4), Signature(TASKS, SIZE), None, Int8Options(threads=1), ["age"]
    )
    with pytest.raises(
        WorkError, match=r"its 3 weighted layers stay in higher precision .*last weighted layer of a head"
    ):
        heads.find_ranges()
