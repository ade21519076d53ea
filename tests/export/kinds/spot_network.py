"""A small network with a head of two outputs that are one task together."""

from __future__ import annotations

import torch
from torch import nn


class Spots(nn.Module):
    """Gives the place of a spot and a score as two outputs, and a class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.place, self.score, self.shade = nn.Linear(16 * 64, 2), nn.Linear(16 * 64, 1), nn.Linear(16 * 64, 3)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the three outputs for images ``(N, 3, 32, 32)``."""
        found = self.features(image).flatten(1)
        return {"place": self.place(found), "score": self.score(found), "shade": self.shade(found)}
