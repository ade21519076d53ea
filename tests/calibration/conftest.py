"""Small graphs, built node by node."""

from __future__ import annotations

import fcntl
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from hard_networks import Deployed

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "examples" / "digits"
# hard_networks imports the example's data and train, as its own scripts do
sys.path.insert(0, str(DIGITS))


class Sketch:
    """A graph in the making: ``image`` goes in, what :meth:`model` is told comes out."""

    def __init__(self, *, opset: int = 18, image: str = "uint8", size: int = 16) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(0)
        shape = ["batch", size, size, 3] if image == "uint8" else ["batch", 3, size, size]
        elem_type = TensorProto.UINT8 if image == "uint8" else TensorProto.FLOAT
        self.inputs = [helper.make_tensor_value_info("image", elem_type, shape)]

    def weight(self, name: str, value: Any) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def node(self, op_type: str, *inputs: str, name: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node; its output is called like itself."""
        outputs = outputs or [name]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=f"n_{name}", **attributes))
        return outputs[0]

    def normalised(self) -> str:
        """The preprocessing of a deployed graph with uint8 input."""
        self.node("Cast", "image", name="pixels", to=TensorProto.FLOAT)
        self.node("Transpose", "pixels", name="planes", perm=[0, 3, 1, 2])
        self.node("Mul", "planes", self.weight("scale", np.full((1, 3, 1, 1), 1 / 58, np.float32)), name="scaled")
        return self.node("Add", "scaled", self.weight("shift", np.full((1, 3, 1, 1), -2, np.float32)), name="normal")

    def conv(self, data: str, channels: tuple[int, int], *, name: str, scale: float = 0.2, **attributes: Any) -> str:
        """A convolution 3 by 3, ``channels`` in and out, with bias."""
        kernel = scale * self.random.standard_normal((channels[1], channels[0], 3, 3))
        weights = [
            self.weight(f"{name}.weight", kernel.astype(np.float32)),
            self.weight(f"{name}.bias", (0.1 * self.random.standard_normal(channels[1])).astype(np.float32)),
        ]
        return self.node("Conv", data, *weights, name=name, pads=[1, 1, 1, 1], **attributes)

    def gemm(self, data: str, sizes: tuple[int, int], *, name: str, scale: float = 0.3) -> str:
        """A linear layer, ``sizes`` in and out, without bias."""
        matrix = scale * self.random.standard_normal(sizes)
        return self.node("Gemm", data, self.weight(f"{name}.weight", matrix.astype(np.float32)), name=name)

    def features(self, data: str) -> str:
        """Average over the image and flatten."""
        return self.node("Flatten", self.node("GlobalAveragePool", data, name="pool"), name="features")

    def model(self, outputs: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()
        ]
        initializers = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, values, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


@pytest.fixture(scope="session")
def sketch() -> type[Sketch]:
    """Start a graph."""
    return Sketch


@pytest.fixture(scope="session")
def multi_head() -> Callable[..., onnx.ModelProto]:
    """A function that builds the smallest network of the project's shape: two layers shared, heads for age, gender and race."""

    def build(opset: int = 18, *, stem_scale: float = 0.2) -> onnx.ModelProto:
        graph = Sketch(opset=opset)
        stem = graph.node(
            "Relu", graph.conv(graph.normalised(), (3, 8), name="stem", scale=stem_scale), name="stem_relu"
        )
        body = graph.conv(stem, (8, 8), name="body", scale=0.2 * 0.2 / stem_scale)
        residual = graph.node("Relu", graph.node("Add", body, stem, name="sum"), name="sum_relu")
        features = graph.features(residual)
        hidden = {
            task: graph.node("Relu", graph.gemm(features, (8, 8), name=f"{task}_hidden"), name=f"{task}_relu")
            for task in ("age", "gender", "race")
        }
        graph.node(
            "Mul",
            graph.gemm(hidden["age"], (8, 1), name="age_raw"),
            graph.weight("age.scale", np.float32(30)),
            name="age",
        )
        graph.node("Sigmoid", graph.gemm(hidden["gender"], (8, 1), name="gender_raw"), name="gender")
        graph.node("Softmax", graph.gemm(hidden["race"], (8, 5), name="race_raw"), name="race", axis=-1)
        return graph.model({"age": ("batch", 1), "gender": ("batch", 1), "race": ("batch", 5)})

    return build


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """``(4, 16, 16, 3) uint8``."""
    return np.random.default_rng(3).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, np.ndarray]]:
    """A function that runs a graph in ONNX Runtime and returns all its outputs by name."""

    def run_model(model: onnx.ModelProto, image: np.ndarray, *, optimize: bool = True) -> dict[str, np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"image": image}), strict=True))

    return run_model


@pytest.fixture(scope="session")
def deploy_digits(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Callable[[str], Deployed]:
    """A function that trains a network of ``hard_networks`` on the digits and exports it.

    Weights are kept in pytest's cache as long as the code that they come from is the same: a later run trains nothing.
    """
    import torch

    torch.set_num_threads(1)
    import data
    import hard_networks

    from mtl_deploy.export.cli import main

    training, held_out = data.load()
    folder = tmp_path_factory.mktemp("digits")
    for name, split in (("train", training), ("test", held_out)):
        data.write(split, folder / name)
    sources = [
        HERE.parent / "networks" / "hard_networks.py",
        *(DIGITS / f"{name}.py" for name in ("data", "train", "weighting")),
    ]
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + torch.__version__.encode())
    cache = getattr(pytestconfig, "cache", None)
    kept = Path(cache.mkdir("digits-networks")) if cache else folder

    def deploy(name: str) -> Deployed:
        weights = kept / f"{name}-{code.hexdigest()[:16]}.pt"
        with weights.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second test process waits instead of training the same
            if not weights.exists():
                network = getattr(hard_networks, f"trained_{name}")(training)
                unfinished = weights.with_suffix(".part")
                torch.save(network.state_dict(), unfinished)
                unfinished.replace(weights)
        bundle = folder / f"{name}.mtl"
        factory = {
            "resnet": [],
            "mobile": ["--model", "hard_networks:mobile"],
            "outlier": ["--model", "hard_networks:plain"],
        }
        options = ["--tasks", str(DIGITS / "tasks.toml"), "--image-size", "64x64", "--images", str(folder / "test")]
        options += ["--no-separate", "--engine", "none", "--threads", "1", "--quiet", "--precision", "fp32,fp16"]
        assert main([str(weights), *factory[name], *options, "--output", str(bundle)]) == 0
        first = data.Split(*(values[: hard_networks.CALIBRATION] for values in vars(training).values()))
        return hard_networks.Deployed(bundle, first, held_out, folder)

    return deploy


@pytest.fixture(scope="session")
def digits_resnet(deploy_digits: Callable[[str], Deployed]) -> Deployed:
    """The demo's ResNet-18, briefly trained: easy to quantize."""
    return deploy_digits("resnet")


@pytest.fixture(scope="session")
def digits_mobile(deploy_digits: Callable[[str], Deployed]) -> Deployed:
    """A MobileNetV2 with channels of uneven scales: plain min-max costs digit and ink visibly."""
    return deploy_digits("mobile")


@pytest.fixture(scope="session")
def digits_outlier(deploy_digits: Callable[[str], Deployed]) -> Deployed:
    """A small network with a 100-fold outlier in the activations of the ink head: that task alone suffers."""
    return deploy_digits("outlier")
