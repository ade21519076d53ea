from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import small_networks
import torch

from mtl_deploy.export.graph import borders, passes
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.graph.variants import serialize
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.tasks import Task

SIZE = 16
PIXELS = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)


def deployed(network: torch.nn.Module, signature: Signature, positions: tuple[int, ...] = (0, 1, 2)) -> ir.Model:
    model = trace(network, SIZE, SIZE).model
    passes.merge_copies(model)
    passes.clean(model)
    borders.rename_outputs(model, positions, [task.name for task in signature.tasks])
    borders.add_preprocessing(model, signature.preprocessing)
    borders.add_decoding(model, signature)
    passes.infer_shapes(model)
    return model


def run(model: ir.Model, image: np.ndarray) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image}), strict=True))


def signature(**changes: Any) -> Signature:
    tasks = (
        Task("age", "regression", unit="years", size=1, scale=100.0, offset=2.0),
        Task("gender", "binary", size=1),
        Task("race", "multiclass", size=4),
    )
    preprocessing = Preprocessing(
        SIZE, SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), input=changes.get("input", "uint8")
    )
    return Signature(changes.get("tasks", tasks), preprocessing, changes.get("outputs", "decoded"))


def normalised() -> torch.Tensor:
    scaled = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    return (scaled - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)


def raw(network: torch.nn.Module) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in network(normalised())]


def test_a_decoded_graph_takes_pixels_and_gives_values_and_probabilities() -> None:
    network = small_networks.Shared().eval()
    age, gender, race = raw(network)

    found = run(deployed(network, signature()), PIXELS)
    np.testing.assert_allclose(found["age"], 100 * age + 2, rtol=1e-4)
    np.testing.assert_allclose(found["gender"], 1 / (1 + np.exp(-gender)), atol=1e-5)
    np.testing.assert_allclose(found["race"], np.exp(race) / np.exp(race).sum(1, keepdims=True), atol=1e-5)


def test_a_graph_of_logits_gives_the_networks_own_outputs() -> None:
    network = small_networks.Shared().eval()
    found = run(deployed(network, signature(outputs="logits")), PIXELS)
    for name, expected in zip(("age", "gender", "race"), raw(network), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_a_graph_with_float_input_takes_normalised_planes() -> None:
    network = small_networks.Shared().eval()
    found = run(deployed(network, signature(input="float", outputs="logits")), normalised().numpy())
    np.testing.assert_allclose(found["race"], raw(network)[2], atol=1e-5)


def test_a_flat_output_becomes_a_column() -> None:
    network = small_networks.Flat().eval()
    found = run(deployed(network, signature()), PIXELS)
    assert {name: array.shape for name, array in found.items()} == {"age": (3, 1), "gender": (3, 1), "race": (3, 4)}


def test_outputs_that_no_task_wants_are_left_out() -> None:
    network = small_networks.Shared().eval()
    wanted = signature(tasks=(Task("race", "multiclass", size=4),))
    model = deployed(network, wanted, positions=(2,))
    common_names = [node.name for node in model.graph]
    assert [output.name for output in model.graph.outputs] == ["race"]
    assert not any("decode/age" in str(name) for name in common_names)


def test_names_inside_the_network_that_collide_with_tasks_are_moved() -> None:
    network = small_networks.Shared().eval()
    taken = trace(network, SIZE, SIZE).model
    inner = str(next(iter(taken.graph)).outputs[0].name)
    tasks = (
        Task(inner if inner.isidentifier() else "conv2d", "regression", size=1),
        Task("linear_2", "binary", size=1),
        Task("linear", "multiclass", size=4),
    )
    found = run(deployed(network, signature(tasks=tasks, outputs="logits")), PIXELS)
    np.testing.assert_allclose(found["linear"], raw(network)[2], atol=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_a_binary_task_of_two_values_is_a_softmax(size: int) -> None:
    wanted = signature(tasks=(Task("gender", "binary", size=size),))
    operators = [node.op_type for node in deployed(small_networks.Shared().eval(), wanted, positions=(1,)).graph]
    assert operators[-1] == {1: "Sigmoid", 2: "Softmax"}[size]


def test_the_file_carries_its_signature() -> None:
    wanted = signature()
    content = serialize(deployed(small_networks.Shared().eval(), wanted), wanted)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[METADATA_KEY] == wanted.to_json()
