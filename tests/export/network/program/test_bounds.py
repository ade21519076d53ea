"""What kernels would read beyond a tensor ends with a message, in a network that still computes what it did."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401 - registers its operators
from torch import nn

from mtl_deploy.export.network.checkpoint import load_checkpoint
from mtl_deploy.runtime.errors import CheckpointError

BATCH_NORMS = ("_native_batch_norm_legit_no_training", "native_batch_norm", "_native_batch_norm_legit")
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Attention(nn.Module):
    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = image.flatten(2)
        found = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens.repeat(1, self.values, 1))
        return found.mean(1), found.mean(2)


class Norm(nn.Module):
    def __init__(self, operator: str, channels: int) -> None:
        super().__init__()
        self.operator = operator
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.linspace(1, 2, channels))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        training = () if self.operator.endswith("no_training") else (False,)
        operator = getattr(torch.ops.aten, self.operator)
        found = operator(image, self.weight, self.bias, self.mean, self.var, *training, 0.1, 1e-5)[0]
        return found.mean((2, 3)), found.amax((2, 3))


class Deformed(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offset = (image.mean(1, keepdim=True)[:, :, :6, :6] * self.factor).repeat(1, 18, 1, 1)
        mask, sizes = torch.ones(1, 9, 6, 6).expand(2, 9, 6, 6), (1, 1, 0, 0, 1, 1, 1, 1, True)
        weight, bias = torch.ones(1, 3, 3, 3), torch.zeros(1)
        found = torch.ops.torchvision.deform_conv2d(image, weight, offset, mask, bias, *sizes)
        return found.mean((2, 3)), found.amax((2, 3))


def saved(network: nn.Module, file: Path) -> Path:
    """Save a program of a network that torch's own shape checks let through."""
    torch.export.save(torch.export.export(network.eval(), (IMAGES,)), file)
    return file


@pytest.mark.parametrize(
    "network",
    [Attention(1), *(Norm(name, 3) for name in BATCH_NORMS), Deformed(1.0)],
    ids=["attention", *BATCH_NORMS, "deformable"],
)
def test_a_sound_network_computes_what_it_did(network: nn.Module, tmp_path: Path) -> None:
    loaded = load_checkpoint(saved(network, tmp_path / "model.pt2")).network
    for run in (loaded, copy.deepcopy(loaded)):
        for given, expected in zip(run(IMAGES), network(IMAGES), strict=True):
            torch.testing.assert_close(given, expected)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Attention(2), "scaled_dot_product_attention"),
        *((lambda name=name: Norm(name, 1), name) for name in BATCH_NORMS),
        (lambda: Deformed(float("nan")), "deform_conv2d"),
    ],
    ids=["attention", *BATCH_NORMS, "deformable"],
)
def test_what_would_read_beyond_a_tensor_is_refused(make: Callable[[], Any], names: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(saved(make(), tmp_path / "model.pt2")).network
    with pytest.raises(CheckpointError, match=f"{names}.* do not fit together"):
        loaded(IMAGES)
