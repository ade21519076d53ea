"""Networks that nobody here wrote: torchvision's, with heads of their own, from the command line to predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from engine_graphs import needs_rtx
from PIL import Image

from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIZE = 64
VECTORS = ("age=regression:years", "smiling=binary:no,yes", "place=multiclass:office,street,forest")
SEGMENTATION, DEPTH = "segmentation=segmentation:sky,road,tree,car,person", "depth=depth:metres"


@dataclass(frozen=True)
class Case:
    """A network of ``examples/torchvision_networks.py``.

    Attributes:
        tasks: as the command line takes them.
        layers: its convolutions and linear layers with a weight, each run once.
        repeated: those that its ``forward`` runs twice.
        separate: whether its bundle has separate models; one dense network with them is enough.
    """

    tasks: tuple[str, ...]
    layers: int
    repeated: int = 0
    separate: bool = True


CASES = {
    "efficientnet": Case(VECTORS, 81 + 3),
    "convnext": Case(VECTORS, 12 + 16 + 3),
    "vit": Case(VECTORS, 1 + 4 * 4 + 3),
    "lraspp": Case((SEGMENTATION, DEPTH, VECTORS[2]), 62 + 4 + 4 + 1),
    "deeplab": Case((SEGMENTATION, DEPTH), 62 + 8 + 2, repeated=62, separate=False),
}
Make = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for position, image in enumerate(synthetic_images(16, SIZE, SIZE, seed=3)):
        Image.fromarray(image).save(folder / f"{position:02}.png")
    return folder


@pytest.fixture(scope="module")
def make(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that exports a network as its user does, from the folder that holds ``examples``."""
    folder = tmp_path_factory.mktemp("bundles")

    def bundle(name: str) -> Bundle:
        target = folder / f"{name}.mtl"
        if not target.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(ROOT)
                from examples.torchvision_networks import weights

                torch.save(weights(name), folder / f"{name}.pt")
                tasks = [word for task in CASES[name].tasks for word in ("--task", task)]
                options = ["--image-size", f"{SIZE}x{SIZE}", "--engine", "none", "--threads", "1", "-q"]
                options += ["--calibration-data", str(pictures), "--calibration-method", "minmax"]
                options += [] if CASES[name].separate else ["--no-separate"]
                model = f"examples.torchvision_networks:{name}"
                assert main([str(folder / f"{name}.pt"), "--model", model, *tasks, *options, "-o", str(target)]) == 0
        return open_bundle(target)

    return bundle


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def weighted(content: bytes) -> list[onnx.NodeProto]:
    """Return the layers with a weight; products of two activations are none."""
    graph = onnx.load_from_string(content).graph
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constant
    }
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return [node for node in layers if node.input[1] in constant]


def read(bundle: Bundle, path: str) -> bytes:
    return (bundle.path / path).read_bytes()


def original(name: str, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Run the network itself; raw outputs by task."""
    from examples import torchvision_networks

    network = torchvision_networks.FACTORIES[name]().eval()
    network.load_state_dict(torchvision_networks.weights(name))
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        found = network((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    return {task: output.numpy() for task, output in (found if isinstance(found, dict) else found._asdict()).items()}


def test_every_graph_is_verified(name: str, make: Make) -> None:
    manifest = make(name).manifest
    names = [task.name for task in manifest.tasks]
    suffixes = ("", ".fp16", ".int8", ".int8-cpu")
    assert {artifact.path for artifact in manifest.artifacts} == {
        *("fp32.onnx", "fp16.onnx", "int8.onnx", "int8-cpu.onnx"),
        *(f"separate/{task}{suffix}.onnx" for task in names for suffix in suffixes if CASES[name].separate),
    }
    verified = {(row["artifact"], row["task"]) for row in manifest.verification}
    assert verified >= {(f"{graph}.onnx", task) for graph in ("fp32", "fp16", "int8", "int8-cpu") for task in names}
    assert all(row["max_error"] <= row["tolerance"] for row in manifest.verification if "against" not in row)
    assert all(row["mean_error"] <= row["tolerance"] for row in manifest.verification)


def test_the_trunk_runs_once(name: str, make: Make) -> None:
    bundle = make(name)
    sharing, tasks = bundle.manifest.sharing, len(bundle.manifest.tasks)
    assert len(weighted(read(bundle, "fp32.onnx"))) == CASES[name].layers
    assert sharing["repeated_layers"] == CASES[name].repeated
    assert sharing["shares_backbone"]
    assert sharing["ideal_ratio"] > 0.5 * tasks
    work = sharing["multiply_adds"]
    assert work["shared"] == work["backbone"] + sum(work["heads"].values())


def test_the_graph_computes_what_the_network_does(name: str, make: Make) -> None:
    images = synthetic_images(3, SIZE, SIZE, seed=11)
    expected = original(name, images)
    bundle = make(name)
    with load(bundle.path, precision="fp32", providers=["CPU"]) as model:
        found = model(images)
    for task in bundle.manifest.tasks:
        raw = expected[task.name]
        if task.kind == "segmentation":
            full = torch.nn.functional.interpolate(torch.from_numpy(raw), (SIZE, SIZE), mode="bilinear")
            assert np.mean(full.argmax(1).numpy() == found[task.name]) > 0.999
            continue
        if task.kind == "depth":
            raw = torch.nn.functional.interpolate(torch.from_numpy(raw), (SIZE, SIZE), mode="bilinear")[:, 0].numpy()
        elif task.kind == "binary":
            raw = 1 / (1 + np.exp(-raw))
        elif task.kind == "multiclass":
            raw = torch.from_numpy(raw).softmax(1).numpy()
        np.testing.assert_allclose(found[task.name], raw, atol=1e-4)


def test_openvino_answers_as_onnx_runtime_does_and_errs_no_more_in_int8(name: str, make: Make) -> None:
    pytest.importorskip("openvino")
    images = np.stack(list(synthetic_images(64, SIZE, SIZE, seed=11)))  # the mean error of fewer is noise
    bundle = make(name)
    found = {}
    for precision in ("fp32", "int8-cpu"):
        for backend in ("onnxruntime", "openvino"):
            options = {"backend": backend, "precision": precision, "runtime_cache": False}
            with load(bundle.path, **options) as model:  # type: ignore[arg-type]
                found[precision, backend] = model(images)
    exact = found["fp32", "onnxruntime"]
    for task in bundle.manifest.tasks:
        values = {key: answers[task.name].astype(np.float64) for key, answers in found.items()}
        truth = exact[task.name].astype(np.float64)
        if task.kind == "segmentation":
            errors = {key: float(np.mean(answers != truth)) for key, answers in values.items()}
            assert errors["fp32", "openvino"] < 1e-3
        else:
            np.testing.assert_allclose(values["fp32", "openvino"], truth, rtol=1e-3, atol=1e-4)
            errors = {key: float(np.sqrt(np.mean((answers - truth) ** 2))) for key, answers in values.items()}
        assert errors["int8-cpu", "openvino"] <= 1.2 * errors["int8-cpu", "onnxruntime"] + 1e-3, (task.name, errors)


def test_layers_compute_in_int8(name: str, make: Make) -> None:
    bundle = make(name)
    layers, heads = CASES[name].layers, len(bundle.manifest.tasks)
    for graph in ("int8.onnx", "int8-cpu.onnx"):
        model = onnx.load_from_string(read(bundle, graph))
        given = {output: node for node in model.graph.node for output in node.output}
        integer = [
            node
            for node in weighted(read(bundle, graph))
            if all(given[each].op_type == "DequantizeLinear" for each in node.input[:2] if each in given)
        ]
        assert len(integer) >= layers - 3 * heads, (graph, len(integer), layers)  # not what ends a head
        weights = [
            tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims
        ]
        assert (
            sum(np.prod(tensor.dims) for tensor in weights)
            > 0.9 * bundle.manifest.sharing["parameters"]["shared"] - 1e5
        )


def test_processors_run_integer_kernels(name: str, make: Make, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    content = read(make(name), "int8-cpu.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    integer = sum(kinds[each] for each in ("QLinearConv", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul"))
    assert integer >= CASES[name].layers - 3 * len(CASES[name].tasks), kinds


def test_int8_is_sound(name: str, make: Make) -> None:
    cells = make(name).manifest.accuracy["cells"]
    for cell in cells:
        assert all(value is None or np.isfinite(value) for value in cell["metrics"].values()), cell
    rows = [row for row in make(name).manifest.verification if "against" in row]
    assert {row["artifact"] for row in rows} == {"int8.onnx", "int8-cpu.onnx"}
    for row in rows:
        assert np.isfinite(row["max_error"])
        assert row["mean_error"] < 0.75 * row["tolerance"], row  # half of it for EfficientNet with fresh weights


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_image_file_is_answered_in_every_precision(name: str, precision: str, make: Make, pictures: Path) -> None:
    bundle = make(name)
    file = pictures / "03.png"
    with load(bundle.path, precision=precision, providers=["CPU"]) as model:
        together = model.predict(file)
    for task in bundle.manifest.tasks:
        found = together[task.name]
        assert np.isfinite(np.asarray(found.value, np.float64)).all() if task.dense else str(found)
        if task.dense:
            assert found.value.shape == (SIZE, SIZE)
    if precision == "fp32" and CASES[name].separate:
        for task in bundle.manifest.tasks:
            with load(bundle.path / "separate" / f"{task.name}.onnx", providers=["CPU"]) as alone:
                same = alone.predict(file)[task.name]
            if task.dense:
                np.testing.assert_allclose(same.value, together[task.name].value, atol=1e-4)
            else:
                assert str(same) == str(together[task.name])


@needs_rtx
def test_an_engine_is_built_of_the_int8_graph(name: str, make: Make, tmp_path: Path) -> None:
    target = tmp_path / "engines.mtl"
    options = ["--engine", "tensorrt-rtx", "--precision", "int8", "--threads", "1", "-q"]
    assert main([str(make(name).path), *options, "-o", str(target)]) == 0
    engines = [
        item for item in open_bundle(target).manifest.artifacts if item.backend == "tensorrt" and item.role == "shared"
    ]
    assert [item.path for item in engines] == ["int8.rtx.trt"]
    assert engines[0].details["layers"]["int8"] > 0


def test_attention_of_opset_23_counts_as_its_products_do_and_stays_in_fp32(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    plain, target = make("vit"), tmp_path / "fused.mtl"
    tasks = [word for task in VECTORS for word in ("--task", task)]
    options = [
        "--model",
        "examples.torchvision_networks:vit",
        "--image-size",
        "64x64",
        "--engine",
        "none",
        "--no-separate",
    ]
    options += ["--opset", "23", "--threads", "1", "-q", "-o", str(target)]
    assert main([str(plain.path.with_suffix(".pt")), *tasks, *options]) == 0
    fused = open_bundle(target)
    work = [bundle.manifest.sharing["multiply_adds"]["shared"] for bundle in (fused, plain)]
    assert work[0] == work[1]
    model = onnx.shape_inference.infer_shapes(onnx.load(target / "fp16.onnx"))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    fused_nodes = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(fused_nodes) == 4
    assert {types[node.output[0]] for node in fused_nodes} == {onnx.TensorProto.FLOAT}


def test_a_network_for_one_size_refuses_another(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    weights = str(make("vit").path.with_suffix(".pt"))
    tasks = [word for task in VECTORS for word in ("--task", task)]
    options = ["--model", "examples.torchvision_networks:vit", "--image-size", "64x64", "--dynamic-size"]
    assert main([weights, *tasks, *options, "--engine", "none", "-q", "-o", str(tmp_path / "free.mtl")]) == 1
    assert "Wrong image height! Expected 64 but got 96!; its forward fixes the size" in capsys.readouterr().err
