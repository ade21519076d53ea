from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.verification.expected import run_network
from mtl_deploy.export.verification.verify import Row, require_passed, verify
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import VerificationError
from mtl_deploy.runtime.predictions.decoding import decode

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
            found["race_logits"] = found["race_logits"] * 1.01
        if self.mistake == "nan":
            found["race"][0, 0] = np.nan
        return found


def rows(mistake: str = "", batch: int | None = None) -> tuple[list[Row], Graph]:
    graph: Any = Graph(mistake)
    samples = [(IMAGES, run_network(network, SIGNATURE, IMAGES, batch))]
    return verify("fp32.onnx", graph, SIGNATURE, samples, tolerance=1e-4, batch=batch), graph


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


def test_errors_are_judged_by_how_values_vary_and_probabilities_by_one() -> None:
    found = {row.task: row for row in rows()[0]}
    spread = 4 * float(outputs_of(IMAGES)["age"].std())
    assert found["age"].spread == pytest.approx(spread, rel=1e-6)
    assert found["age"].tolerance == pytest.approx(1e-4 * spread, rel=1e-6)
    assert found["gender"].tolerance == found["race"].tolerance == pytest.approx(1e-4)
    assert found["race"].logit_tolerance == pytest.approx(1e-4 * (found["race"].spread or 0), rel=1e-6)


class Offset(torch.nn.Module):
    """A head that answers in years: a small signal on a large number, in any precision."""

    def __init__(self, weight: float = 0.4, offset: float = 2005.5) -> None:
        super().__init__()
        self.weight, self.offset = weight, offset

    def forward(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        red = tensor.mean((2, 3))[:, :1]
        return {"year": self.weight * (red - 0.5) + self.offset}

    @property
    def in_float64(self) -> Offset:
        return self


def verified(found: Any, forward: Any = None, precision: str = "fp32", tolerance: float = 1e-4) -> Row:
    """Verify a graph that gives what ``found`` computes from a float32 tensor, against the network of one year."""
    signature = Signature((Task("year", "regression", size=1),), SIGNATURE.preprocessing)
    expected = run_network(forward or Offset(), signature, IMAGES, None)

    class Backend:
        def run(self, inputs: dict[str, Any], outputs: list[str], into: object = None) -> dict[str, Any]:
            pixels = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2).float() / 255
            return {name: value.numpy() for name, value in found(pixels).items()}

    backend: Any = Backend()
    row, *_ = verify(
        "graph.onnx",
        backend,
        signature,
        [(IMAGES, expected)],
        tolerance=tolerance,
        batch=None,
        precision=precision,
    )
    return row


def test_float32_that_rounds_a_large_offset_is_within_the_noise_floor() -> None:
    row = verified(Offset())
    assert row.passed
    assert row.truth == "float64"
    assert row.floor is not None
    assert 0.5 * np.spacing(np.float32(2005.5)) <= row.floor < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("weight", [0.0, 0.36], ids=["weights set to zero", "a tenth missing"])
def test_a_signal_on_a_large_offset_cannot_be_lost(weight: float, precision: str) -> None:
    assert not verified(Offset(weight), precision=precision, tolerance=1e-2).passed


def test_a_constant_output_is_named_and_judged_by_its_size() -> None:
    row = verified(Offset(weight=0), Offset(weight=0))
    assert row.constant
    assert row.passed
    assert not verified(Offset(weight=0, offset=2006), Offset(weight=0)).passed


def test_an_ill_conditioned_network_is_called_that_and_not_blamed_on_the_exporter() -> None:
    class Cancelling(Offset):
        def forward(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
            red = tensor.mean((2, 3))[:, :1]
            return {"year": (red * 1e-4 + 1000) - 1000}

    class Another(torch.nn.Module):
        """The same in another order, as a graph sums."""

        def forward(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
            red = tensor.flatten(2).sum(2)[:, :1] / 16
            return {"year": (red * 1e-4 + 1000) - 1000}

    row = verified(Another(), Cancelling())
    assert row.passed
    assert row.ill_conditioned
    with pytest.raises(
        VerificationError, match=r"the network's own float32 is \S+ off float64 there \(the network is ill-cond"
    ):
        require_passed([verified(Offset(weight=1e-4, offset=0.01), Cancelling())])


def test_an_image_that_decides_gets_a_float64_answer_of_its_own() -> None:
    """The noise floor of one image is a thousand times that of the others; float64 has not been asked about it at first."""

    means = IMAGES[..., 0].mean((1, 2)) / 255
    assert int(np.argmax(means)) >= 8, "the odd image must not be among the first"
    cut = float(np.sort(means)[-2:].mean())

    class Uneven(Offset):
        def forward(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
            red = tensor.mean((2, 3))[:, :1]
            large = torch.where(red > cut, 1e4, 1.0)
            return {"year": (red + large) - large}

    def another_order(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = Uneven()(pixels)["year"]
        return {"year": found + 2e-4 * (pixels.mean((2, 3))[:, :1] > cut)}

    row = verified(another_order, Uneven())
    assert row.passed
    assert row.floor is not None
    assert row.floor > 1e-4


MOOD = Task("mood", "multiclass", size=3, activation="softmax")
SMILE = Task("smile", "binary", size=1, activation="sigmoid")
OWN = Signature((MOOD, SMILE), SIGNATURE.preprocessing)


def sure(tensor: torch.Tensor, factor: float = 1.0) -> dict[str, torch.Tensor]:
    """Probabilities that are all but 0 and 1, from logits that a factor is wrong in; a sigmoid's as far as runtimes go."""
    red, green, blue = (tensor.mean((2, 3)) * torch.tensor([1.0, factor, 1.0])).unbind(1)
    return {
        "mood": torch.stack([40 * red + 40, 20 * green, 20 * blue], 1).softmax(1),
        "smile": (green * 9 - 13)[:, None].sigmoid(),
    }


def test_ill_conditioned_logits_behind_probabilities_are_called_that_too() -> None:
    sure = torch.tensor([20.0, 0.0, 0.0])  # so that the probabilities show nothing

    class Cancelling(Offset):
        def forward(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
            mean = tensor.mean((2, 3))[:, :1]
            return {"mood": (torch.cat([mean, 2 * mean, 3 * mean], 1) * 1e-2 + 1000 - 1000 + sure).softmax(1)}

    class Wrong:
        def run(self, inputs: dict[str, Any], names: list[str], into: object = None) -> dict[str, Any]:
            mean = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2).float().mean((2, 3))[:, :1] / 255
            return {"mood": (torch.cat([mean, 2 * mean, mean], 1) * 1e-2 + sure).softmax(1).numpy()}

    signature = Signature((MOOD,), SIGNATURE.preprocessing)
    samples = [(IMAGES, run_network(Cancelling(), signature, IMAGES, None))]
    backend: Any = Wrong()
    (row,) = verify("graph.onnx", backend, signature, samples, tolerance=1e-4, batch=None)
    assert row.floor is not None
    assert row.spread is not None
    assert row.floor > 1e-4 * row.spread  # both of the logits
    with pytest.raises(
        VerificationError, match=r"the network's own float32 is \S+ off float64 there \(the network is ill-"
    ):
        require_passed([row])


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_what_a_networks_own_activation_hides_is_compared(outputs: Any, factor: float) -> None:
    signature = Signature(OWN.tasks, OWN.preprocessing, outputs)

    class Own:
        def run(self, inputs: dict[str, Any], names: list[str], into: object = None) -> dict[str, Any]:
            assert names == ["mood", "smile"]
            tensor = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2).float() / 255
            return {name: value.numpy() for name, value in sure(tensor, factor).items()}

    backend: Any = Own()
    samples = [(IMAGES, run_network(sure, signature, IMAGES, None))]
    found = verify("fp32.onnx", backend, signature, samples, tolerance=1e-4, batch=None)
    for row in found:
        assert row.max_error < 5e-5  # the probabilities themselves show nothing
        assert row.passed == (factor == 1.0)
        assert row.logit_error is not None
        assert (row.logit_error > 0.01) == (factor != 1.0)


@pytest.mark.parametrize(
    ("task", "values", "decoded", "wanted"),
    [
        (Task("a", "binary", size=1, threshold=0.3), [[0.31], [0.2]], True, [1, 0]),
        (Task("a", "binary", size=1, threshold=0.3), [[-0.8], [-0.9]], False, [1, 0]),
        (Task("a", "binary", size=1, threshold=0.3, activation="sigmoid"), [[0.31], [0.2]], False, [1, 0]),
        (Task("a", "binary", size=2, threshold=0.3), [[0.69, 0.31], [0.8, 0.2]], True, [1, 0]),
        (Task("a", "binary", size=2, threshold=0.3), [[0.8, 0.0], [0.9, 0.0]], False, [1, 0]),
        (Task("a", "binary", size=2, threshold=0.3, activation="softmax"), [[0.69, 0.31], [0.8, 0.2]], False, [1, 0]),
        (Task("a", "multiclass", size=2), [[0.69, 0.31], [0.2, 0.8]], False, [0, 1]),
    ],
)
def test_the_class_is_the_runtimes(task: Task, values: list[list[float]], decoded: bool, wanted: list[int]) -> None:
    outputs = np.array(values, np.float32)
    assert kind_of(task).chosen(task, outputs, decoded=decoded).astype(int).tolist() == wanted
    form: Any = "decoded" if decoded else "logits"
    assert [prediction.value for prediction in decode(task, outputs, form)] == wanted
