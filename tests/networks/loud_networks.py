"""Networks that FP16 rounds badly: a small signal rides on a large value between two layers, as after a bias that grew."""

from __future__ import annotations

import torch
from torch import nn


class Loud(nn.Module):
    """Two small layers with a signal on an offset between them, then layers that hold nearly all of the work.

    Args:
        width: channels of the quiet layers.
        loud: channels of the loud ones.
    """

    def __init__(self, width: int = 48, loud: int = 8) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Conv2d(3, loud, 3, stride=2, padding=1)
        self.up, self.down = nn.Conv2d(loud, loud, 1), nn.Conv2d(loud, loud, 1)
        with torch.no_grad():
            self.up.bias.fill_(1500.0)
            self.down.bias.copy_(-self.down.weight.sum((1, 2, 3)) * 1500.0)
        self.quiet = nn.Sequential(
            nn.Conv2d(loud, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.age, self.gender = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.quiet(self.down(self.up(self.stem(x))))
        return {"age": self.age(features), "gender": self.gender(features)}


class AllLoud(Loud):
    """Hardly any layer is quiet: FP16 cannot be saved."""

    def __init__(self) -> None:
        super().__init__(width=2, loud=64)


class LoudWeights(Loud):
    """The offset is small enough for FP16's activations, but one large layer adds up its weights' errors over it."""

    def __init__(self) -> None:
        super().__init__(width=16, loud=96)
        with torch.no_grad():
            self.up.bias.fill_(20.0)
            self.down.bias.copy_(-self.down.weight.sum((1, 2, 3)) * 20.0)


class LoudSum(Loud):
    """Two quiet branches, whose sum alone rides on a large offset: what joins them is loud, no layer is."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.up.bias.zero_()
            self.down.bias.zero_()
        self.offset = nn.Parameter(torch.full((1,), 1500.0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        stem = self.stem(x)
        joined = self.up(stem).relu() + self.down(stem).relu() + self.offset
        features = self.quiet(joined - self.offset)
        return {"age": self.age(features), "gender": self.gender(features)}


class Casting(Loud):
    """Casts to float32 in its forward, so that it does not run in float64."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(x.float())


class Dead(Loud):
    """A branch behind a scale of zero, a head that training never reached."""

    def __init__(self) -> None:
        super().__init__(loud=8)
        with torch.no_grad():
            self.up.bias.zero_()
            self.down.bias.zero_()
            self.gender.weight.zero_()
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        stem = self.stem(x)
        features = self.quiet(stem + self.scale * self.branch(stem))
        return {"age": self.age(features), "gender": self.gender(features)}
