"""Networks and bundles that several rooms' tests use. Everything is real: real checkpoints, real exports."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ARTICLE_SIZE = "64x64"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--graphs-on openvino``: wherever a test loads a graph without saying on what, it runs on OpenVINO."""
    parser.addoption("--graphs-on", choices=("onnxruntime", "openvino"), help="what runs graphs that tests load")


@pytest.fixture(scope="session", autouse=True)
def _graphs_on(request: pytest.FixtureRequest) -> Iterator[None]:
    wanted = request.config.getoption("--graphs-on")
    if wanted is None:
        yield
        return
    from mtl_deploy.runtime import finding, selection

    choose = selection.graph_backend

    def chosen(precision: str | None, backend: str | None, providers: Any) -> tuple[str, str]:
        return (
            (wanted, "--graphs-on") if backend is None and providers is None else choose(precision, backend, providers)
        )

    with pytest.MonkeyPatch.context() as patch:
        for module in (finding, selection):
            patch.setattr(module, "graph_backend", chosen)
        yield


@pytest.fixture(scope="session")
def graphs_on(request: pytest.FixtureRequest) -> str:
    """Return what runs graphs that a test loads without saying on what."""
    return str(request.config.getoption("--graphs-on") or "onnxruntime")


@pytest.fixture(scope="session", autouse=True)
def _unmeasured() -> Iterator[None]:
    """Let commands measure graphs where a test asks for it alone: it takes seconds, and what loads then depends on the machine."""
    if find_spec("onnx") is None:
        yield
        return
    from mtl_deploy.calibration import command_line

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "MEASURES", False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Keep PyTorch to one core per test process, as several run side by side; where it is not installed, do nothing."""
    if find_spec("torch") is None:
        return
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: a shell starts jobs in the background (``make test &``) with the signal ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def article_state() -> dict[str, Any]:
    """The state_dict of a ResNet-18 in the article's layout, heads 1, 1 and 5, with BatchNorm statistics that are not trivial."""
    import torch

    from mtl_deploy.export.networks import article

    torch.manual_seed(7)
    layout = article.Layout(
        bottleneck=False,
        blocks=(2, 2, 2, 2),
        groups=1,
        width_per_group=64,
        heads=tuple(article.Head(hidden=64, size=size) for size in (1, 1, 5)),
    )
    network = article.build(layout)
    generator = torch.Generator().manual_seed(8)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var") or (".bn" in name and name.endswith("weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.state_dict()


@pytest.fixture(scope="session")
def article_checkpoint(article_state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.pt``: the state_dict, as the article's training script saves it."""
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    torch.save(article_state, path)
    return path


@pytest.fixture(scope="session")
def article_bundle(article_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that ``mtl-export model.pt`` makes of it. Tests must not change it."""
    from mtl_deploy.export.cli import main

    target = tmp_path_factory.mktemp("bundle") / "model.mtl"
    arguments = [str(article_checkpoint), "--image-size", ARTICLE_SIZE, "--output", str(target), "--threads", "1"]
    assert main([*arguments, "--engine", "none"]) == 0  # engines have tests of their own
    return target


@pytest.fixture
def export_file(tmp_path: Path) -> Callable[..., Path]:
    """A function that exports a checkpoint into the test's folder and returns the bundle."""
    from mtl_deploy.export.cli import main

    def run(checkpoint: Path, *arguments: str) -> Path:
        target = tmp_path / "exported.mtl"
        code = main([str(checkpoint), "--output", str(target), "--threads", "1", "--engine", "none", *arguments])
        assert code == 0
        return target

    return run


TINY = (8, 8)  # height and width of the tiny bundle's images
MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A function that writes a tiny bundle without the exporter: three tasks on the mean colour of an image."""
    return lambda folder=None, **options: write_tiny_bundle(folder or tmp_path / "tiny.mtl", **options)


def write_tiny_bundle(
    folder: Path,
    *,
    batch: int | None = None,
    batch_max: int | None = None,
    outputs: str = "decoded",
    image_input: str = "uint8",
    precisions: tuple[str, ...] = ("fp32", "fp16"),
    separate: bool = True,
    work: int = 0,
) -> Path:
    """Write graphs made with onnx.helper and their manifest; ``work`` adds convolutions to the backbone."""
    import hashlib

    from mtl_deploy.runtime.bundle.manifest import Artifact, Manifest
    from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
    from mtl_deploy.runtime.bundle.signature import Signature
    from mtl_deploy.runtime.bundle.tasks import Task
    from mtl_deploy.runtime.bundle.writing import write_manifest

    tasks = (
        Task("age", "regression", unit="years", size=1, scale=100.0, offset=1.0),
        Task("gender", "binary", labels=("male", "female"), size=1),
        Task("race", "multiclass", labels=("a", "b", "c"), size=3),
    )
    signature = Signature(tasks, Preprocessing(*TINY, input=image_input), outputs)  # type: ignore[arg-type]
    (folder / "separate").mkdir(parents=True)
    artifacts = []
    for precision in precisions:
        sides = [("shared", f"{precision}.onnx", signature)]
        if separate:
            suffix = "" if precision == "fp32" else f".{precision}"
            sides += [("separate", f"separate/{t.name}{suffix}.onnx", signature.subset([t.name])) for t in tasks]
        for role, path, own in sides:
            content = tiny_graph(own, batch, work)
            (folder / path).write_bytes(content)
            artifacts.append(
                Artifact(
                    path=path,
                    role=role,
                    tasks=tuple(task.name for task in own.tasks),
                    precision=precision,
                    backend="onnxruntime",
                    batch_min=batch or 1,
                    batch_max=batch or batch_max,
                    opset=17,
                    sha256=hashlib.sha256(content).hexdigest(),
                    size_bytes=len(content),
                    parameters=12 + 9 * work,
                    multiply_adds=3 * sum(task.size for task in own.tasks) + 5184 * work + 1000,
                )
            )
    write_manifest(folder, Manifest(folder.stem, signature, tuple(artifacts), {"ideal_ratio": 3.0}))
    return folder


def tiny_graph(signature: Any, batch: int | None, work: int = 0) -> bytes:
    """Return a graph whose logits are fixed mixes of an image's mean colour (0 to 1)."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from mtl_deploy.runtime.bundle.signature import METADATA_KEY

    height, width = TINY
    uint8 = signature.preprocessing.input == "uint8"
    shape = [batch or "batch", height, width, 3] if uint8 else [batch or "batch", 3, height, width]
    nodes, constants = [], {}
    current = "image"
    if uint8:
        constants["scale"] = np.array(1 / 255, np.float32)
        nodes += [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        current = "planes"
    rng = np.random.default_rng(0)
    for i in range(work):
        constants[f"kernel{i}"] = rng.standard_normal((3, 3, 3, 3)).astype(np.float32) / 5
        nodes.append(helper.make_node("Conv", [current, f"kernel{i}"], [f"conv{i}"], pads=[1, 1, 1, 1]))
        current = f"conv{i}"
    nodes += [
        helper.make_node("GlobalAveragePool", [current], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    mixes = {
        "age": np.array([[1.0, 0.0, 0.0]], np.float32),
        "gender": np.array([[0.0, 4.0, -4.0]], np.float32),
        "race": np.array([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 6.0]], np.float32),
    }
    decoded = signature.outputs == "decoded"
    for task in signature.tasks:
        name = task.name
        constants[f"{name}.weight"] = mixes[name]
        raw = f"{name}_logits" if decoded else name
        nodes.append(helper.make_node("Gemm", ["features", f"{name}.weight"], [raw], name=f"{name}_head", transB=1))
        if not decoded:
            continue
        if task.kind == "regression":
            constants |= {
                "age.scale": np.array(task.scale, np.float32),
                "age.offset": np.array(task.offset, np.float32),
            }
            nodes.append(helper.make_node("Mul", [raw, "age.scale"], ["age_scaled"]))
            nodes.append(helper.make_node("Add", ["age_scaled", "age.offset"], [name]))
        elif task.kind == "binary":
            nodes.append(helper.make_node("Sigmoid", [raw], [name]))
        else:
            nodes.append(helper.make_node("Softmax", [raw], [name], axis=-1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8 if uint8 else TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, [batch or "batch", t.size]) for t in signature.tasks],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: signature.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
