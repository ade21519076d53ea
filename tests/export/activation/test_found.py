"""Activations found in the graph, however they are written, and checked by values."""

from __future__ import annotations

import warnings
from typing import Any

import activation_networks as made
import numpy as np
import pytest

from mtl_deploy.export.activation.applied import settle_activations
from mtl_deploy.export.graph.passes import clean, merge_copies
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ActivationWarning, TaskError
from tests.export.activation.heads import ALL, FORMS, WARNED, Heads, says


@pytest.fixture(scope="module")
def heads() -> Heads:
    """By form, an output of one graph that has them all, and its values ``(N, size)`` on 32 images."""
    network = made.Applied({name: (form, size) for name, (form, _, size) in ALL.items()}).eval()
    model = trace(network, 32, 32).model
    merge_copies(model)
    clean(model)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    pixels = (pixels * np.linspace(0.1, 1, 32)[:, None, None, None]).astype(np.uint8)
    outputs = dict(zip(ALL, model.graph.outputs, strict=False))
    values = dict(zip(ALL, says(network, pixels), strict=False))
    return {name: (outputs[name], values[name].numpy().reshape(32, -1)) for name in ALL}


def settled(head: tuple[Any, np.ndarray], **fields: Any) -> Task:
    output, values = head
    size = values.shape[1]
    task = Task("a", **{"kind": "binary" if size == 1 else "multiclass", "size": size, **fields})
    (found,), _ = settle_activations([task], [output], {"a": values})
    return found


@pytest.mark.parametrize("name", FORMS)
def test_an_activation_is_found_however_it_is_written(name: str, heads: Heads) -> None:
    wanted = FORMS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name]).activation == wanted
        if wanted != "none":  # said by hand, the same holds
            assert settled(heads[name], activation=wanted).activation == wanted
            with pytest.raises(TaskError, match="activation none is declared, but the network's graph ends in"):
                settled(heads[name], activation="none")


@pytest.mark.parametrize("name", WARNED)
def test_values_like_probabilities_without_an_operator_are_a_warning(name: str, heads: Heads) -> None:
    with pytest.warns(
        ActivationWarning, match=f"say so with activation={WARNED[name][1]}, otherwise with activation=none"
    ):
        assert settled(heads[name]).activation == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name], activation=WARNED[name][1]).activation == WARNED[name][1]
        assert settled(heads[name], kind="regression").activation is None


@pytest.mark.parametrize("name", ["constant", "dead", "decided", "one hot", "reaching"])
def test_what_looks_like_probabilities_by_accident_is_no_warning(name: str, heads: Heads) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name]).activation == "none"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mixed", {}, "concatenates parts with different activations \\(values 0 to 0: sigmoid; values 1 to 3: none\\)"),
        ("two softmaxes", {}, "concatenates parts .*values 0 to 1: softmax; values 2 to 3: softmax"),
        ("log_sigmoid", {}, "the logarithm of one probability, which no kind of task takes; return the logit"),
        ("sigmoids", {"kind": "binary"}, "two sigmoids are two answers.*declare it multiclass"),
        ("one softmax", {}, "softmax of one value is always the same"),
        ("logits", {"activation": "sigmoid"}, "activation sigmoid is declared, but the network's graph ends in Gemm.*none"),
        ("logits", {"activation": "softmax"}, "activation softmax is declared, but the network's graph ends in Gemm.*none"),
        ("softmax", {"activation": "log_softmax"}, "log_softmax is declared.*Softmax, which is softmax; write activation=softmax"),
        ("reaching", {"activation": "sigmoid"}, "activation sigmoid is declared, but on the verif.*values are from -"),
        ("mixed", {"activation": "softmax"}, "activation softmax is declared, but on the verif.*rows that sum to"),
    ],
)  # fmt: skip
def test_what_contradicts_is_an_error_that_says_both(
    name: str, fields: dict[str, Any], message: str, heads: Heads
) -> None:
    with pytest.raises(TaskError, match=message):
        settled(heads[name], **fields)
