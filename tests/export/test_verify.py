from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtl_deploy.export.expected import run_network
from mtl_deploy.export.verify import Row, require_passed, verify
from mtl_deploy.runtime.errors import VerificationError
from mtl_deploy.runtime.preprocessing import Preprocessing
from mtl_deploy.runtime.signature import Signature
from mtl_deploy.runtime.tasks import Task

SIGNATURE = Signature(
    (
        Task("age", "regression", size=1, scale=10.0),
        Task("gender", "binary", size=1),
        Task("race", "multiclass", size=3),
    ),
    Preprocessing(4, 4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)
IMAGES = np.random.default_rng(2).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def network(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    red, green, blue = tensor.mean((2, 3)).unbind(1)
    return {"age": red[:, None], "gender": (green - blue)[:, None], "race": torch.stack([red, green, blue], 1) * 9}


def outputs_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """All that a deployed graph gives for the images, with the logits behind it, as PyTorch says."""
    expected = run_network(network, SIGNATURE, images, None)
    return {name: array for task in SIGNATURE.tasks for name, array in expected.outputs(task).items()}


class Graph:
    """A backend that computes what the network does, with a mistake where told; and notes the batches that it gets."""

    def __init__(self, mistake: str = "") -> None:
        self.mistake = mistake
        self.batches: list[int] = []

    def run(self, inputs: dict[str, Any], outputs: list[str], into: object = None) -> dict[str, Any]:
        pixels = inputs["image"]
        self.batches.append(len(pixels))
        found = outputs_of(pixels)
        if self.mistake == "swapped channels":
            found = outputs_of(pixels[..., ::-1])
        if self.mistake == "swapped heads":
            found["age"], found["gender"] = found["gender"], found["age"]
        if self.mistake == "saturated":  # probabilities that round to the right ones, from logits that are wrong
            found["race_logits"] = found["race_logits"] + 50
        if self.mistake == "nan":
            found["race"][0, 0] = np.nan
        return found


def rows(mistake: str = "", batch: int | None = None) -> tuple[list[Row], Graph]:
    graph: Any = Graph(mistake)
    samples = [(IMAGES, run_network(network, SIGNATURE, IMAGES, batch))]
    return verify("fp32.onnx", graph, SIGNATURE, samples, tolerance=lambda _: 1e-4, batch=batch), graph


def test_expected_outputs_are_decoded() -> None:
    expected = outputs_of(IMAGES)
    mean = IMAGES.astype(np.float64).mean((1, 2)) / 255
    np.testing.assert_allclose(expected["age"][:, 0], 10 * mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(expected["gender"][:, 0], 1 / (1 + np.exp(mean[:, 2] - mean[:, 1])), rtol=1e-5)
    np.testing.assert_allclose(expected["race"].sum(1), 1, rtol=1e-5)


def test_a_graph_that_matches_passes_and_is_tried_at_several_batches() -> None:
    found, graph = rows()
    require_passed(found)
    assert [row.task for row in found] == ["age", "gender", "race"]
    assert [row.samples for row in found] == [20, 20, 20]
    assert [row.agreement for row in found] == [None, 1.0, 1.0]
    assert graph.batches == [1, 3, 8, 8]


def test_a_graph_that_insists_on_its_batch_gets_it() -> None:
    _, graph = rows(batch=5)
    assert set(graph.batches) == {5}


@pytest.mark.parametrize(
    ("mistake", "task"),
    [("swapped channels", "age"), ("swapped heads", "gender"), ("nan", "race"), ("saturated", "race")],
    ids=lambda text: text,
)
def test_a_graph_that_does_not_match_is_refused_naming_the_task_and_the_figures(mistake: str, task: str) -> None:
    found, _ = rows(mistake)
    with pytest.raises(VerificationError, match=rf"fp32\.onnx, task '{task}': error \S+ \(allowed \S+\)"):
        require_passed(found)


def test_the_tolerance_is_relative_to_values_and_absolute_for_probabilities() -> None:
    tolerances = {row.task: row.tolerance for row in rows()[0]}
    largest = float(np.abs(outputs_of(IMAGES)["age"]).max())
    assert tolerances == pytest.approx({"age": 1e-4 * largest, "gender": 1e-4, "race": 1e-4})
