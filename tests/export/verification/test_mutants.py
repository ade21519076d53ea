"""Verification must not let a wrong graph pass: graphs with one mistake each, of a trained classifier and of a dense network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dense_networks
import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from mtl_deploy.calibration.fp16.emulate import original_name, require_rounded
from mtl_deploy.calibration.graph.file import without_weights
from mtl_deploy.calibration.observe.spread import spread
from mtl_deploy.export.fp16.stage import HalfStage
from mtl_deploy.export.graph.variants import GraphVariant
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.steps.network import clean, load, trace_network
from mtl_deploy.export.steps.outputs import Bound, bind
from mtl_deploy.export.steps.truth import ask_pytorch
from mtl_deploy.export.verification.same import same_but_for_types
from mtl_deploy.export.verification.stage import Originals, running, verify_graphs
from mtl_deploy.export.verification.verify import graph_input
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import MtlError
from tests.export.verification.mutants import Mutant, mutants

LEAST = 60  # mutants of each network
SEEN = {"fp32": 5e-4, "fp16": 5e-3}  # of the spread: what may not pass


class Digits(nn.Module):
    """A small residual network on 8x8 digits, shown in colour at 32x32: which digit, whether it is odd, how much ink."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)
        )
        self.last = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.digit, self.odd, self.ink = nn.Linear(32, 10), nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.first(x)
        features = self.last(functional.relu(features + self.block(features))).flatten(1)
        return {"digit": self.digit(features), "odd": self.odd(features), "ink": self.ink(features)}


def digits() -> nn.Module:
    """Train the classifier for a few seconds; it then knows nine digits of ten."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = torch.from_numpy(found.images).float()[:, None].repeat(1, 3, 1, 1) / 16
    pictures = (functional.interpolate(pictures, size=32, mode="bilinear") - 0.45) / 0.225
    labels, ink = torch.from_numpy(found.target), torch.from_numpy(found.images.mean((1, 2))).float()
    network = Digits().train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    order = torch.Generator().manual_seed(1)
    for _ in range(15):
        for rows in torch.randperm(len(labels), generator=order).split(64):
            given = network(pictures[rows])
            loss = functional.cross_entropy(given["digit"], labels[rows])
            loss = loss + functional.binary_cross_entropy_with_logits(given["odd"][:, 0], (labels[rows] % 2).float())
            loss = loss + functional.l1_loss(given["ink"][:, 0], ink[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        assert (network(pictures)["digit"].argmax(1) == labels).float().mean() > 0.9
    return network


CLASSIFIER = (
    Task("digit", "multiclass"),
    Task("odd", "binary"),
    Task("ink", "regression", scale=2.0, offset=2000.0),
)
DENSE = (
    Task("seg", "segmentation"),
    Task("depth", "depth", scale=2.0, offset=3.0),
    Task("normals", "normals"),
)


@dataclass(frozen=True)
class Mutated(GraphVariant):
    """A graph whose file is another's with a mistake."""

    file: bytes = b""

    def content(self) -> bytes:
        return self.file


@cache
def made(name: str) -> tuple[Bound, Options, list[GraphVariant], Originals]:
    """Return what an export has before it verifies, the FP16 graphs, and what these were made from."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    network, tasks, size = (digits(), CLASSIFIER, 32) if name == "classifier" else (dense_networks.Scenes(), DENSE, 64)
    torch.save(network, folder / "network.pt")
    options = Options(
        folder / "network.pt",
        trust_pickle=True,
        tasks=tasks,
        preprocessing=Preprocessing(size, size),
        separate=False,
        threads=1,
    )
    quiet = Progress(quiet=True)
    network = load(options, quiet)
    traced = trace_network(network, options, quiet)
    clean(traced, network, options, quiet)
    bound = bind(traced, ask_pytorch(network, traced.batch, options, quiet), options, quiet)
    rows, _ = verify_graphs(bound.graphs, bound.samples, options, Progress(quiet=True))
    assert all(row.passed and row.truth == "float64" for row in rows)
    originals = Originals(bound.graphs, rows)
    half = HalfStage(originals, bound.samples, bound.shares, options, Progress(quiet=True)).make()
    return bound, options, half.graphs, originals


def passes(graph: GraphVariant, mutant: Mutant, bound: Bound, options: Options, originals: Originals) -> bool:
    values = {field: getattr(graph, field) for field in graph.__dataclass_fields__}
    wrong = Mutated(**values, file=mutant[1].SerializeToString())
    try:
        rows, _ = verify_graphs([wrong], bound.samples, options, Progress(quiet=True), originals=originals)
    except MtlError:
        return False
    return all(row.passed for row in rows)


def given(model: onnx.ModelProto, bound: Bound, options: Options) -> dict[str, np.ndarray]:
    """Return the outputs before and after decoding, computed in float32 whatever the graph's precision."""
    from mtl_deploy.export.verification.expected import held
    from mtl_deploy.export.verification.verify import with_logits

    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float16:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
    del wide.graph.value_info[:]
    images = graph_input(bound.samples[0][0], bound.signature.preprocessing)
    with running(with_logits(wide.SerializeToString(), bound.signature), options) as backend:
        every = [name for task in bound.signature.tasks for name in held(task, bound.signature)]
        found = backend.run({INPUT_NAME: images}, every)
    return {name: np.asarray(values) for name, values in found.items()}


def effect_of(wrong: np.ndarray, right: np.ndarray) -> float:
    """Return the largest error of the spread; of class indices the share of pixels that differ."""
    if right.dtype.kind != "f":
        return float(np.mean(wrong != right))
    values = right if right.ndim != 3 else right[:, None]  # a decoded depth has no channel
    return float(np.abs(wrong.astype(np.float64) - right).max() / np.sqrt(np.mean(spread(values) ** 2)))


def survivors(name: str, precision: str) -> tuple[int, dict[str, float]]:
    """Return how many mutants there were, and of those that pass by name the largest effect on a task, of its spread."""
    bound, options, half, originals = made(name)
    graph = bound.graphs[0] if precision == "fp32" else half[0]
    model = onnx.load_from_string(graph.content())
    right = given(model, bound, options)
    found: dict[str, float] = {}
    count = 0
    for mutant in mutants(model):
        try:
            wrong = given(mutant[1], bound, options)
        except MtlError:  # no graph that anything runs
            continue
        effect = max(effect_of(wrong[name], values) for name, values in right.items())
        if effect == 0:
            continue
        count += 1
        if passes(graph, mutant, bound, options, originals):
            found[mutant[0]] = effect
    return count, found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["classifier", "dense"])
def test_no_mistake_that_matters_passes(name: str, precision: str) -> None:
    count, found = survivors(name, precision)
    assert count >= LEAST
    assert {mutant: effect for mutant, effect in found.items() if not effect <= SEEN[precision]} == {}


def test_the_same_graph_passes() -> None:
    bound, options, half, originals = made("classifier")
    for graph in (bound.graphs[0], half[0]):
        assert passes(graph, ("none", onnx.load_from_string(graph.content())), bound, options, originals)


@pytest.mark.parametrize("name", ["classifier", "dense"])
def test_an_fp16_graph_is_its_fp32_graph_unless_there_is_a_mistake(name: str) -> None:
    """Then it is not run in float32 again. Mistakes in weights are found by comparing them with the FP32 graph's."""
    bound, _, half, _ = made(name)
    weights = {
        str(value.name): value.const_value.numpy() for value in bound.graphs[0].model.graph.initializers.values()
    }

    def is_the_same(model: onnx.ModelProto) -> bool:
        try:
            require_rounded(model, weights)
        except MtlError:
            return False
        single = without_weights(bound.graphs[0].model)
        return same_but_for_types(model, single, lambda called: original_name(called, weights))

    model = onnx.load_from_string(half[0].content())
    assert is_the_same(model)
    every = list(mutants(model))
    assert len(every) >= LEAST
    assert [mistake for mistake, wrong in every if is_the_same(wrong)] == []


def test_mistakes_that_do_not_matter_are_what_survives() -> None:
    """A check that refuses everything would pass the test above."""
    bound, options, _, originals = made("classifier")
    graph = bound.graphs[0]
    model = onnx.load_from_string(graph.content())
    kernel = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    tensor = next(each for each in model.graph.initializer if each.name == kernel)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] *= np.float32(1 + 1e-6)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, kernel))
    assert passes(graph, ("a millionth", model), bound, options, originals)
