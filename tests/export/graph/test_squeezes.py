"""Heads that end in ``squeeze()``, from one image to several."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from mtl_deploy.export.graph import passes
from mtl_deploy.export.graph.squeezes import settle_squeezes
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.graph.variants import serialize


class Squeezing(nn.Module):
    """An average pool that is squeezed, a head of one value that is, and one that has nothing to squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.age, self.race = nn.Conv2d(3, 8, 3), nn.Linear(8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.convolution(x).mean((2, 3), keepdim=True).squeeze().reshape(x.shape[0], 8)
        return self.age(features).squeeze(), self.race(features).squeeze(), features


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_of_one_stays_a_batch(batch: int) -> None:
    torch.manual_seed(0)
    network = Squeezing().eval()
    traced = trace(network, 16, 16)
    assert traced.batch is None
    passes.merge_copies(traced.model)
    passes.clean(traced.model)
    session = onnxruntime.InferenceSession(serialize(traced.model), providers=["CPUExecutionProvider"])
    images = torch.randn(batch, 3, 16, 16)
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert [value.shape for value in found] == [(batch,), (batch, 5), (batch, 8)]
    with torch.inference_mode():
        wanted = network(images)
    for value, truth in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value.ravel(), truth.numpy().ravel(), atol=1e-5)


def test_a_squeeze_that_says_its_axes_stays_as_it_is() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)

    model = trace(Plain().eval(), 8, 8).model
    assert isinstance(model, ir.Model)
    assert settle_squeezes(model) == 0
