"""Checkpoints written and compared by several test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtl_deploy.export.networks import article

State = dict[str, torch.Tensor]
LAYOUT = article.Layout(
    bottleneck=False,
    blocks=(1, 1, 1, 1),
    groups=1,
    width_per_group=64,
    heads=(article.Head(8, 1), article.Head(8, 1), article.Head(8, 5)),
)
IMAGE = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def small_network() -> nn.Module:
    """Return a network of the article's layout on the smallest ResNet that torchvision makes."""
    torch.manual_seed(1)
    return article.build(LAYOUT).eval()


def save(folder: Path, content: object, name: str = "model.pt", **options: Any) -> Path:
    path = folder / name
    torch.save(content, path, **options)
    return path


def assert_same(found: nn.Module, expected: nn.Module, image: torch.Tensor = IMAGE) -> None:
    with torch.inference_mode():
        pairs = list(zip(found(image), expected(image), strict=True))
    for output, reference in pairs:
        torch.testing.assert_close(output, reference, rtol=0, atol=0)


def prefixed(prefix: str) -> Callable[[State], object]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}
