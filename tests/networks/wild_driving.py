"""Public networks that drive: vehicles as boxes, road and lanes as maps. Rebuilt small; what they return is theirs.

Written anew from the papers and from what the repositories' networks return; nothing of their code is in here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from wild_detectors import WIDTH, Pyramid, down, rows


class YOLOP(nn.Module):
    """Vehicles, drivable area and lane lines (hustvl/YOLOP); the grid is made anew in ``forward`` and kept in a list.

    Returns a list: a tuple of rows ``(N, A, 6)`` (centre, size, objectness, class, in pixels and from 0 to 1) and a list of three
    maps ``(N, 3, h, w, 6)``; then two maps ``(N, 2, H, W)``, a sigmoid per channel. A is 3 * (h8 w8 + h16 w16 + h32 w32).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fpn, self.stride = Pyramid(), torch.tensor([8.0, 16.0, 32.0])
        self.m = nn.ModuleList(nn.Conv2d(WIDTH, 18, 1) for _ in range(3))
        anchors = torch.tensor([[3, 9, 5, 11, 4, 20], [7, 18, 6, 39, 12, 31], [19, 50, 38, 81, 68, 157]]).float()
        self.register_buffer("anchors", anchors.view(3, -1, 2) / self.stride.view(-1, 1, 1))
        self.register_buffer("anchor_grid", anchors.view(3, 1, -1, 1, 1, 2))
        self.grid = [torch.zeros(1)] * 3
        self.seg = nn.ModuleList(self._segmentation() for _ in range(2))

    @staticmethod
    def _segmentation() -> nn.Sequential:
        layers: list[nn.Module] = []
        for size in (WIDTH, WIDTH, 2):
            layers += [nn.Conv2d(WIDTH, size, 3, padding=1), nn.Upsample(None, 2, "nearest")]
        return nn.Sequential(*layers)

    def detect(self, x: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Decode three maps, which are replaced in the list that they came in."""
        decoded = []
        for i in range(3):
            x[i] = self.m[i](x[i])
            bs, _, ny, nx = x[i].shape
            x[i] = x[i].view(bs, 3, 6, ny * nx).permute(0, 1, 3, 2).view(bs, 3, ny, nx, 6).contiguous()
            if self.grid[i].shape[2:4] != x[i].shape[2:4]:
                yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
                self.grid[i] = torch.stack((xv, yv), 2).view((1, 1, ny, nx, 2)).float()
            y = x[i].sigmoid()
            y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + self.grid[i]) * self.stride[i]
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchor_grid[i]
            decoded.append(y.view(bs, -1, 6))
        return torch.cat(decoded, 1), x

    def forward(self, x: torch.Tensor) -> list[object]:
        maps = self.fpn(x)
        return [self.detect(list(maps)), *(torch.sigmoid(head(maps[0])) for head in self.seg)]


class YOLOPv2(YOLOP):
    """The same tasks, given away as a TorchScript trace alone, whose rows are decoded outside (CAIC-AD/YOLOPv2).

    Returns a tuple: a tuple of three maps ``(N, 18, h, w)`` and three constants ``(1, 3, 1, 1, 2)``, both lists; the drivable
    area ``(N, 2, H, W)`` logits; lane lines ``(N, 1, H, W)``, a probability.
    """

    def forward(self, x: torch.Tensor) -> Any:
        maps = self.fpn(x)
        rows_of = [conv(level) for conv, level in zip(self.m, maps, strict=True)]
        area, lanes = (head(maps[0]) for head in self.seg)
        return (rows_of, list(self.anchor_grid.unbind())), area, torch.sigmoid(lanes[:, :1] - lanes[:, 1:])


class Swish(torch.autograd.Function):
    """x * sigmoid(x) with a backward of its own, to save memory."""

    @staticmethod
    def forward(ctx: Any, i: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(i)
        return i * torch.sigmoid(i)


class SamePool(nn.Module):
    """TensorFlow's ``same`` max pooling: zeros around a map that goes below zero, then 3x3 of stride 2 without padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        extra_h = (-(-width // 2) - 1) * 2 - width + 3
        extra_v = (-(-height // 2) - 1) * 2 - height + 3
        x = functional.pad(x, [extra_h // 2, extra_h - extra_h // 2, extra_v // 2, extra_v - extra_v // 2])
        return functional.max_pool2d(x, 3, 2)


class HybridNets(nn.Module):
    """Vehicles, road and lanes on a BiFPN (datvuthanh/HybridNets); NumPy makes its anchors in ``forward`` and keeps them.

    Returns a tuple: a tuple of features of strides 8 to 128, boxes ``(N, A, 4)``, scores ``(N, A, 1)`` after a sigmoid, anchors
    ``(1, A, 4)`` whatever N is, segmentation ``(N, 3, H, W)`` logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p2, self.p3, self.p4, self.p5 = nn.Sequential(down(3), down()), down(), down(), down()
        self.pool, self.bn = SamePool(), nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in range(5))
        self.w = nn.Parameter(torch.tensor([1.0, 0.6]))
        self.regressor, self.classifier = nn.Conv2d(WIDTH, 9 * 4, 1), nn.Conv2d(WIDTH, 9, 1)
        self.seg, self.last_anchors = nn.Conv2d(WIDTH, 3, 1), {}  # type: ignore[var-annotated]
        self.dropout = nn.Dropout2d(0.2, inplace=True)

    def anchors(self, image: torch.Tensor) -> torch.Tensor:
        """Return boxes ``(1, A, 4)``: y1, x1, y2, x2."""
        size = tuple(image.shape[2:])
        if size in self.last_anchors:
            return self.last_anchors[size]
        boxes = []
        for stride in (8, 16, 32, 64, 128):
            xv, yv = np.meshgrid(np.arange(stride / 2, size[1], stride), np.arange(stride / 2, size[0], stride))
            centre = np.stack([yv.reshape(-1), xv.reshape(-1)], 1)[:, None].repeat(9, 1)
            half = np.linspace(1, 3, 9)[None, :, None] * stride
            boxes.append(np.concatenate([centre - half, centre + half], 2).reshape(-1, 4))
        self.last_anchors[size] = torch.from_numpy(np.vstack(boxes).astype(np.float32)).unsqueeze(0)
        return self.last_anchors[size]

    def forward(self, inputs: torch.Tensor) -> tuple[object, ...]:
        p2 = self.p2(inputs)
        p3 = self.p3(p2)
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        p6 = self.pool(self.bn[3](p5))
        p7 = self.pool(p6)
        weight = self.w.relu() / (self.w.relu().sum(dim=0) + 1e-4)
        p4 = self.bn[1](Swish.apply(weight[0] * p4 + weight[1] * self.pool(p3)))
        p5 = self.bn[2](Swish.apply(weight[0] * p5 + weight[1] * self.pool(p4)))
        features = (p3, p4, p5, p6, p7)
        boxes = torch.cat([rows(self.regressor(level), 4) for level in features], dim=1)
        scores = torch.cat([rows(self.classifier(level), 1) for level in features], dim=1).sigmoid()
        p3 = functional.interpolate(p3, scale_factor=2, mode="bilinear", align_corners=True)
        seg = functional.interpolate(self.seg(self.dropout(p2 + p3)), scale_factor=4, mode="bilinear")
        return features, boxes, scores, self.anchors(inputs), seg
