"""Small networks with one heatmap per point, as Simple Baselines and HRNet have."""

from __future__ import annotations

import torch
from torch import nn


class Pose(nn.Module):
    """Heatmaps of five points at stride 4, twice, and whether somebody stands; a dict."""

    POINTS = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 5, padding=2),
            nn.ReLU(),
        )
        self.heatmaps, self.others = (nn.Conv2d(16, self.POINTS, 1) for _ in range(2))
        self.stands = nn.Linear(16, 1)
        nn.init.normal_(self.heatmaps.weight)
        nn.init.normal_(self.others.weight)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs for images ``(N, 3, H, W)``."""
        maps = self.features(x)
        return {"points": self.heatmaps(maps), "means": self.others(maps), "stands": self.stands(maps.mean((2, 3)))}


class SimpleBaseline(nn.Module):
    """COCO's 17 points of a person (microsoft/human-pose-estimation.pytorch), rebuilt small from the paper.

    An encoder of stride 16, two transposed convolutions with BatchNorm, a 1x1 convolution; returns ``(N, 17, H / 4, W / 4)``.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        layers: list[nn.Module] = []
        for before, after in ((3, 8), (8, 16), (16, 16), (16, 16)):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        for _ in range(2):
            layers += [nn.ConvTranspose2d(16, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        self.features, self.final_layer = nn.Sequential(*layers), nn.Conv2d(16, 17, 1)
        nn.init.normal_(self.final_layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps of images ``(N, 3, H, W)``."""
        heatmaps: torch.Tensor = self.final_layer(self.features(x))
        return heatmaps
