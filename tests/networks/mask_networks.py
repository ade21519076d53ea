"""Small networks with masks in every form that public networks return them in."""

from __future__ import annotations

import torch
from torch import nn


class Masks(nn.Module):
    """One encoder of stride 4 and, as a dict, masks of one channel and of two, as logits and behind activations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Conv2d(16, channels, 3, padding=1) for name, channels in CHANNELS.items()})
        for head in self.heads.values():
            nn.init.normal_(head.weight)
            nn.init.zeros_(head.bias)
            head.weight.data -= head.weight.data.mean(
                (1, 2, 3), keepdim=True
            )  # so that masks mark some pixels, not all

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the masks of images ``(N, 3, H, W)`` at a quarter of their size."""
        maps = self.features(x)
        found = {name: head(maps) for name, head in self.heads.items()}
        found["smooth"] = found["smooth"].sigmoid()
        found["shares"] = found["shares"].softmax(1)
        found["logs"] = found["logs"].log_softmax(1)
        found["two"] = found["two"].sigmoid()
        return found


CHANNELS = {"lane": 1, "area": 2, "smooth": 1, "shares": 2, "logs": 2, "two": 2}
ACTIVATIONS = {
    "lane": "none",
    "area": "none",
    "smooth": "sigmoid",
    "shares": "softmax",
    "logs": "log_softmax",
    "two": "sigmoid",
}
THRESHOLDS = {"lane": 0.3, "area": 0.6, "smooth": 0.7, "shares": 0.4, "logs": 0.55, "two": 0.5}
