"""Small networks with one value per pixel: an encoder of stride 8, a decoder that interpolates, heads at stride 4."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU6()
    )


class Scenes(nn.Module):
    """Segmentation (5 classes), depth and normals, as a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.stem = nn.Sequential(_down(3, 8), _down(8, 16))
        self.deep = _down(16, 24)
        self.lateral, self.top = nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(24, 16, 1, bias=False)
        self.segmentation = nn.Conv2d(16, 5, 3, padding=1)
        self.depth = nn.Conv2d(16, 1, 3, padding=1)
        self.normals = nn.Conv2d(16, 3, 3, padding=1)
        for head in (self.segmentation, self.depth, self.normals):
            nn.init.normal_(head.weight, std=0.5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the decoder's map, ``(N, 16, H / 4, W / 4)``."""
        fine = self.stem(x)
        coarse = self.top(self.deep(fine))
        coarse = functional.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return functional.relu(self.lateral(fine) + coarse)

    def forward(self, x: torch.Tensor) -> object:
        maps = self.features(x)
        return {"seg": self.segmentation(maps), "depth": self.depth(maps), "normals": self.normals(maps)}


class Mixed(Scenes):
    """Depth without a channel, a second depth of the same shape, and a class of the whole image; and None for training's own."""

    def __init__(self) -> None:
        super().__init__()
        self.other, self.place = nn.Conv2d(16, 1, 3, padding=1), nn.Linear(16, 4)
        nn.init.normal_(self.other.weight, std=0.5)

    def forward(self, x: torch.Tensor) -> object:
        maps = self.features(x)
        place = self.place(maps.mean((2, 3)))
        return {"near": self.depth(maps)[:, 0], "aux": None, "far": self.other(maps)[:, 0], "place": place}


class FixedSize(Scenes):
    """Writes its size into its code."""

    def forward(self, x: torch.Tensor) -> object:
        maps = self.features(x)
        flat = maps.reshape(-1, 16, 24 * 16).mean(2)
        return self.segmentation(maps) + flat[:, :5, None, None], self.depth(maps)


class Pooled(Scenes):
    """Pools to more than one place, which the exporter writes with fixed sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.age = nn.Linear(16 * 4 * 4, 1)

    def forward(self, x: torch.Tensor) -> object:
        maps = self.features(x)
        return self.age(functional.adaptive_avg_pool2d(maps, 4).flatten(1)), self.depth(maps)


class Odd(Scenes):
    """Gives maps of a size that no whole stride leads to."""

    def forward(self, x: torch.Tensor) -> object:
        maps = functional.interpolate(self.features(x), size=(30, 41), mode="nearest")
        return self.segmentation(maps), self.depth(maps)
