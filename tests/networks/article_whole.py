"""The article's network as training code writes it, at module level, so that it can be pickled whole."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class HydraNet(nn.Module):
    """A narrow ResNet-10 with heads fc1, fc2, fc3 as its parts: age, gender, race."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = ResNet(BasicBlock, [1, 1, 1, 1])
        features = self.net.fc.in_features
        self.net.fc = nn.Identity()
        for number, size in enumerate((1, 1, 5), start=1):
            layers = OrderedDict(linear=nn.Linear(features, 8), relu1=nn.ReLU(), final=nn.Linear(8, size))
            self.net.add_module(f"fc{number}", nn.Sequential(layers))
        self.eval()

    def forward(self, x: torch.Tensor) -> object:
        return self.net.fc1(self.net(x)), self.net.fc2(self.net(x)), self.net.fc3(self.net(x))


class OnePass(HydraNet):
    """A subclass that runs the backbone once."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.net(x)
        return self.net.fc1(features), self.net.fc2(features), self.net.fc3(features)


class Named(HydraNet):
    """A subclass that returns names."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.net(x)
        return {"age": self.net.fc1(features), "gender": self.net.fc2(features), "race": self.net.fc3(features)}


class Swapped(HydraNet):
    """A subclass whose outputs are in another order, which their sizes do not show."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.net(x)
        return self.net.fc2(features), self.net.fc1(features), self.net.fc3(features)


class Activated(HydraNet):
    """A subclass that applies a sigmoid itself."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.net(x)
        return self.net.fc1(features), self.net.fc2(features).sigmoid(), self.net.fc3(features)
