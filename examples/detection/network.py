"""One backbone and three heads: boxes of objects, a mask of the floor, and the conditions under which an image was taken.

The boxes are anchor-free, as in "FCOS: Fully Convolutional One-Stage Object Detection" (Tian, Shen, Chen, He, ICCV 2019, arXiv
1904.01355): each place of two maps, at strides 8 and 16, says how far the sides of the object around it are. There is no
centerness: the score itself is trained to be the box's overlap with the truth, as in "Generalized Focal Loss" (Li et al., NeurIPS
2020, arXiv 2006.04388). The maps come from a small feature pyramid (Lin et al., CVPR 2017, arXiv 1612.03144).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 3
CONDITIONS = 4
STRIDES = (8, 16)  # pixels of the image per place, of the maps of boxes and scores
MULTIPLE = 32  # the backbone's largest stride: sides are multiples of it
PRIOR = 0.01  # score of every place before training, so that the many empty places do not drown the others


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them, as in ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = normalised(inputs, outputs, 3, stride)
        self.second = normalised(outputs, outputs, 3)
        self.around = normalised(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, inputs, h, w)`` to ``(N, outputs, h / stride, w / stride)``."""
        return functional.relu(self.second(functional.relu(self.first(features))) + self.around(features))


class Head(nn.Module):
    """Boxes and scores of one level, with a convolution of its own for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.box = nn.Sequential(normalised(channels, channels, 3), nn.ReLU(), nn.Conv2d(channels, 4, 3, padding=1))
        self.score = nn.Sequential(
            normalised(channels, channels, 3), nn.ReLU(), nn.Conv2d(channels, CLASSES, 3, padding=1)
        )
        nn.init.constant_(self.box[-1].bias, 1.0)
        nn.init.normal_(self.score[-1].weight, std=0.01)
        nn.init.constant_(self.score[-1].bias, -math.log(1 / PRIOR - 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances ``(N, 4, h, w)`` in strides, all above 0, and logits ``(N, CLASSES, h, w)``."""
        return functional.softplus(self.box(features)), self.score(features)


class Detector(nn.Module):
    """The network. ``forward`` takes ``(N, 3, H, W) float32`` with sides that are multiples of 32 and returns a dict.

    - ``boxes_8`` and ``boxes_16``, ``(N, 4, H / stride, W / stride)``: distances from the place's middle to the left, upper, right
      and lower side of the object there, in strides.
    - ``scores_8`` and ``scores_16``, ``(N, CLASSES, H / stride, W / stride)``: logits.
    - ``floor``, ``(N, 1, H / 4, W / 4)``: logits.
    - ``conditions``, ``(N, CONDITIONS)``: logits.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            normalised(3, width // 4, 3, 2), nn.ReLU(), normalised(width // 4, width // 2, 3, 2), nn.ReLU()
        )
        self.quarter = Block(width // 2, width // 2)
        self.eighth = nn.Sequential(Block(width // 2, width, 2), Block(width, width))
        self.sixteenth = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width))
        self.last = Block(2 * width, 2 * width, 2)
        self.laterals = nn.ModuleList(nn.Conv2d(size, width, 1) for size in (width // 2, width, 2 * width, 2 * width))
        self.smooth = nn.ModuleList(normalised(width, width, 3) for _ in STRIDES)
        self.heads = nn.ModuleList(Head(width) for _ in STRIDES)
        self.floor = nn.Sequential(normalised(width, width // 2, 3), nn.ReLU(), nn.Conv2d(width // 2, 1, 1))
        self.conditions = nn.Linear(2 * width, CONDITIONS)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run the backbone once and each head on what it gives."""
        quarter = self.quarter(self.stem(image))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        last = self.last(sixteenth)
        found = [self.laterals[3](last)]
        for lateral, features in zip(self.laterals[2::-1], (sixteenth, eighth, quarter), strict=True):
            found.append(lateral(features) + functional.interpolate(found[-1], scale_factor=2.0, mode="nearest"))
        outputs = {}
        for stride, smooth, head, level in zip(STRIDES, self.smooth, self.heads, (found[2], found[1]), strict=True):
            outputs[f"boxes_{stride}"], outputs[f"scores_{stride}"] = head(functional.relu(smooth(level)))
        outputs["floor"] = self.floor(found[3])
        outputs["conditions"] = self.conditions(last.mean(dim=(2, 3)))
        return outputs


def make() -> Detector:
    """Return the network with fresh weights: what ``mtl-export --model`` calls."""
    return Detector()


def normalised(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and a BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def places(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the middle ``(A, 2)`` (x, y) of every place in pixels and its stride ``(A,)``, the finest level first, row by row."""
    middles, strides = [], []
    for stride in STRIDES:
        y = (torch.arange(size[0] // stride) + 0.5) * stride
        x = (torch.arange(size[1] // stride) + 0.5) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        middles.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2))
        strides.append(torch.full((len(middles[-1]),), float(stride)))
    return torch.cat(middles), torch.cat(strides)


def decoded(outputs: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return boxes ``(N, A, 4)`` (x1, y1, x2, y2 in pixels) and logits ``(N, A, CLASSES)``, in the order of :func:`places`."""
    distances, logits = (
        torch.cat([outputs[f"{part}_{stride}"].flatten(2).transpose(1, 2) for stride in STRIDES], dim=1)
        for part in ("boxes", "scores")
    )
    middles, strides = places(size)
    distances = distances * strides[:, None]
    return torch.cat([middles - distances[..., :2], middles + distances[..., 2:]], dim=-1), logits
