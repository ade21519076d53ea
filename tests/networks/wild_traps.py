"""Small networks with one trait each that stops an exporter, all seen in public networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from small_networks import Shared, backbone
from torch import nn
from torch.nn import functional
from torchvision.ops import DeformConv2d


class Baked(Shared):
    """The batch as an integer in the code: ``(N, 1)``, ``(N, 1)`` and ``(N, 4)``."""

    def forward(self, x: torch.Tensor) -> object:
        batch = int(x.shape[0])
        features = self.backbone(x).reshape([batch, 8])
        return self.age(features), self.gender(features), self.race(features)


class BakedConstant(Shared):
    """A buffer with one row per image of a batch of two: fails at any other N. Of small networks this says least about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(2, 8))

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x) + self.state
        return self.age(features), self.gender(features), self.race(features)


class Mixing(Shared):
    """Subtracts the mean over the batch: an answer depends on the other images, without any BatchNorm."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        features = features - 0.5 * features.mean(0, keepdim=True)
        return self.age(features), self.gender(features), self.race(features)


class Stateless(Shared):
    """BatchNorm without running statistics: an answer depends on the other images of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone[1] = nn.BatchNorm2d(8, track_running_stats=False)


class Dropping(Shared):
    """Dropout that is on in eval mode, as ``functional.dropout`` is by default: no two answers are the same."""

    def forward(self, x: torch.Tensor) -> object:
        features = functional.dropout(self.backbone(x), 0.3)
        return self.age(features), self.gender(features), self.race(features)


class Noisy(Shared):
    """Noise of another kind than dropout."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        features = features + 0.1 * torch.randn_like(features)
        return self.age(features), self.gender(features), self.race(features)


@dataclass
class Outputs:
    """A plain dataclass, which torch does not know."""

    age: torch.Tensor
    gender: torch.Tensor
    race: torch.Tensor
    loss: torch.Tensor | None = None


class Fields:
    """Neither a mapping nor a dataclass: names with ``keys`` and ``[]``, as detectron2's and mmengine's containers."""

    def __init__(self, **values: object) -> None:
        self._values = values

    def keys(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, name: str) -> object:
        return self._values[name]


class Contained(Shared):
    """Returns age, gender and race in a container: ``dataclass``, ``namespace`` (attributes alone) or ``fields``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.container: Any = {"dataclass": Outputs, "namespace": SimpleNamespace, "fields": Fields}[kind]

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return self.container(age=self.age(features), gender=self.gender(features), race=self.race(features))


class Nested(Shared):
    """A dict of tuples of dicts, with all that is no output beside it.

    Returns ``{"faces": ({"age": (N, 1)}, [(N, 1), None]), "race": (N, 4), "size": (H, W), "anchors": (6, 4) int64, "scale": 0.5}``.
    """

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        faces = ({"age": self.age(features)}, [self.gender(features), None])
        anchors = torch.arange(24).reshape(6, 4)
        return {"faces": faces, "race": self.race(features), "size": x.shape[2:], "anchors": anchors, "scale": 0.5}


class ExtraState(Shared):
    """Keeps something else than tensors in its state dict, as layers of quantization and of Transformer Engine do."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: dict[str, int]) -> None:
        if state["version"] != 2:
            raise ValueError(f"version {state['version']}")


class Tied(Shared):
    """Two names for one layer: a state dict has both, ``safetensors.torch.save_model`` writes one."""

    def __init__(self) -> None:
        super().__init__()
        self.gender = self.age

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        return {"age": self.age(features), "gender": self.gender(features.flip(1)), "race": self.race(features)}


class PaddedPool(nn.Module):
    """A zero Pad before a MaxPool, over values below zero, as in EfficientDet's BiFPN.

    An optimizer that folds the Pad into the MaxPool pads with minus infinity. Returns a tuple: ``(N, 3, H / 2, W / 2)`` and
    ``(N, 3)``. For a 4x4 map of -1 the first map is ``[[-1, 0], [0, 0]]`` in each channel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> object:
        maps = functional.max_pool2d(functional.pad(x * self.scale, [0, 1, 0, 1]), 3, 2)
        return maps, maps.mean((2, 3))


class Deformable(Shared):
    """A deformable convolution, which ONNX has from opset 19 on."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.deform = nn.Conv2d(3, 18, 3, padding=1), DeformConv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> object:
        return super().forward(self.deform(x, self.offset(x)))


class OddPool(Shared):
    """Adaptive pooling whose sizes do not divide the map's: 7x7 bins of 16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.flat = nn.AdaptiveAvgPool2d(7), nn.Linear(3 * 49, 8)

    def forward(self, x: torch.Tensor) -> object:
        features = self.flat(self.odd(x[:, :, ::4, ::4]).flatten(1))
        return self.age(features), self.gender(features), self.race(features)


class Branching(Shared):
    """An ``if`` on the image's own values."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        if features.mean() > 0:
            features = features * 2
        return self.age(features), self.gender(features), self.race(features)


class Spectral(Shared):
    """An operator without an ONNX form: singular values."""

    def forward(self, x: torch.Tensor) -> object:
        features = self.backbone(x)
        values = torch.linalg.svdvals(features.reshape(-1, 2, 4))
        features = torch.cat([features[:, :6], values], 1)
        return self.age(features), self.gender(features), self.race(features)


class Silent(Shared):
    """An ``eval`` that forgets to return the network."""

    def eval(self) -> None:  # type: ignore[override]
        super().eval()


class Wide(nn.Module):
    """Takes 1, 4 or 6 channels: ``(N, 1)``, ``(N, 1)`` and ``(N, 4)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 3, 3, padding=1)
        self.rest = Shared()

    def forward(self, x: torch.Tensor) -> object:
        return self.rest(self.first(x))


class Pair(nn.Module):
    """Two images, compared: whether they are the same person ``(N, 1)``, and the ages of both ``(N, 2)``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.same, self.age = backbone(), nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> object:
        one, two = self.backbone(first), self.backbone(second)
        return {"same": self.same((one - two).abs()), "ages": torch.cat([self.age(one), self.age(two)], 1)}


class Sized(nn.Module):
    """Wants a size beside the images, which its map has: ``seg`` ``(N, 3, *out_size)``, ``place`` ``(N, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.place = nn.Conv2d(3, 3, 3, 2, 1), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, out_size: tuple[int, int], threshold: float = 0.5) -> object:
        maps = self.maps(x)
        seg = functional.interpolate(maps, size=out_size, mode="bilinear", align_corners=False)
        return {"seg": seg, "place": self.place(maps.mean((2, 3))) * (threshold * 2)}
