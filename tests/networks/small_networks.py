"""Small multi-task networks, each with a trait that an exporter can get wrong."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn


def backbone(width: int = 8) -> nn.Sequential:
    """Return convolutions with BatchNorm, pooled to ``(N, width)``."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Shared(nn.Module):
    """One pass of the backbone, a tuple out: sizes 1 (regression), 1 (binary), 4 (classes)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = backbone()
        self.age, self.gender, self.race = nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return self.age(features), self.gender(features), self.race(features)


class Repeating(Shared):
    """Calls the backbone anew for each head, as the article's network does."""

    def forward(self, x: torch.Tensor) -> object:
        return self.age(self.backbone(x)), self.gender(self.backbone(x)), self.race(self.backbone(x))


class ReversedDict(Shared):
    """Returns a dict whose order is neither that of the heads nor that of the alphabet."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return {"race": self.race(features), "age": self.age(features), "gender": self.gender(features)}


class Faces(NamedTuple):
    """What a network with named outputs returns."""

    gender: torch.Tensor
    age: torch.Tensor
    race: torch.Tensor


class Named(Shared):
    """Returns a named tuple."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return Faces(self.gender(features), self.age(features), self.race(features))


class Flat(Shared):
    """Gives ``(N,)`` for the tasks with one value."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return self.age(features)[:, 0], self.gender(features).squeeze(-1), self.race(features)


class Copied(Shared):
    """Each head has a backbone of its own, all with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(copy.deepcopy(self.backbone) for _ in range(3))
        del self.backbone

    def forward(self, x: torch.Tensor) -> object:
        heads = (self.age, self.gender, self.race)
        return tuple(head(own(x)) for head, own in zip(heads, self.backbones, strict=True))


class Unshared(Copied):
    """Each head has a backbone of its own, with weights of its own: nothing is shared."""

    def __init__(self) -> None:
        super().__init__()
        for own in self.backbones:
            for parameter in own.parameters():
                nn.init.normal_(parameter, std=0.3)


class RepeatedHead(Shared):
    """Runs its backbone once and one head twice."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return self.age(features), self.gender(features), self.race(features) + self.race(features)


class Overflowing(Shared):
    """Has features beyond the range of FP16, which its heads bring back."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone[:3](x) * 1e6
        features = self.backbone[3:](features) * 1e-6
        return self.age(features), self.gender(features), self.race(features)


class Siamese(Shared):
    """Runs the backbone on the image and on its mirror image: the same weights, different data."""

    def forward(self, x: torch.Tensor) -> object:
        straight, mirrored = self.backbone(x), self.backbone(x.flip(-1))
        return self.age(straight), self.gender(mirrored), self.race(straight + mirrored)


class FixedBatch(Shared):
    """Writes a batch of one into its code."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x).reshape(1, 8)
        return self.age(features), self.gender(features), self.race(features)


class Twins(Shared):
    """Two heads that compute the same values."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return self.age(features), self.age(features), self.race(features)


def make() -> nn.Module:
    """Return a network, as a user's factory does."""
    return ReversedDict()
