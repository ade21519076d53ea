"""Public networks that detect, alone or beside other tasks, rebuilt small: nesting and shapes of what they return are theirs.

Written anew from the papers and from what the repositories' networks return; nothing of their code is in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import DeformConv2d, nms

WIDTH = 8


def down(before: int = WIDTH, after: int = WIDTH) -> nn.Sequential:
    """Return a convolution of stride 2 with BatchNorm."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Pyramid(nn.Module):
    """A trunk and a top-down path; maps of strides 8, 16 and 32, brought to each other's size by ``nearest``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(down(3), down())
        self.stages = nn.ModuleList(down() for _ in range(3))
        self.lateral = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, maps = self.stem(x), []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for place in (1, 0):
            size = [maps[place].size(2), maps[place].size(3)]
            maps[place] = maps[place] + functional.interpolate(maps[place + 1], size=size, mode="nearest")
        return maps


def rows(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Turn a map of several anchors per place, ``(N, A * size, h, w)``, into ``(N, h * w * A, size)``."""
    maps = maps.permute(0, 2, 3, 1).contiguous()
    return maps.view(maps.shape[0], -1, size)


class RetinaFace(nn.Module):
    """Faces with five points, two anchors per place (biubug6/Pytorch_Retinaface); built from a dict and a phase.

    Returns a tuple: boxes ``(N, A, 4)``, offsets from anchors that the network does not give; scores ``(N, A, 2)``, softmax in
    phase ``test`` and logits in ``train``, even in eval mode; landmarks ``(N, A, 10)``. A is 2 * (h8 w8 + h16 w16 + h32 w32).
    """

    def __init__(self, cfg: dict[str, Any] | None = None, phase: str = "train") -> None:
        super().__init__()
        self.phase, anchors = phase, len((cfg or {"steps": (8, 16)})["steps"])
        self.fpn = Pyramid()
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(nn.Conv2d(WIDTH, anchors * size, 1) for _ in range(3)) for size in (2, 4, 10)
        )

    def forward(self, inputs: torch.Tensor) -> Any:
        maps = self.fpn(inputs)
        boxes, scores, landmarks = (
            torch.cat([rows(head(level), size) for head, level in zip(heads, maps, strict=True)], dim=1)
            for heads, size in ((self.BboxHead, 4), (self.ClassHead, 2), (self.LandmarkHead, 10))
        )
        return boxes, functional.softmax(scores, dim=-1) if self.phase == "test" else scores, landmarks


class YOLOPose(nn.Module):
    """Persons with 17 points, without anchors (YOLOv8-pose of ultralytics/ultralytics); boxes are 4 distributions of 4.

    Returns a tuple: one tensor ``(N, 4 + 1 + 51, A)``, values before places; and a dict of ``boxes`` ``(N, 16, A)``, ``scores``
    ``(N, 1, A)``, ``kpts`` ``(N, 51, A)`` and ``feats``, a list of three maps. A is h8 w8 + h16 w16 + h32 w32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fpn, self.shape = Pyramid(), None
        self.cv2, self.cv3, self.cv4 = (
            nn.ModuleList(nn.Conv2d(WIDTH, size, 1) for _ in range(3)) for size in (16, 1, 51)
        )
        self.dfl = nn.Conv2d(4, 1, 1, bias=False)
        self.dfl.weight.data[:] = torch.arange(4.0).view(1, 4, 1, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, object]]:
        maps = self.fpn(x)
        batch = x.shape[0]
        if self.shape != maps[0].shape:  # kept from call to call, as theirs
            places, strides = [], []
            for level, stride in zip(maps, (8, 16, 32), strict=True):
                sy, sx = torch.meshgrid(
                    torch.arange(level.shape[2]) + 0.5, torch.arange(level.shape[3]) + 0.5, indexing="ij"
                )
                places.append(torch.stack((sx, sy), -1).view(-1, 2))
                strides.append(torch.full((places[-1].shape[0], 1), float(stride)))
            self.places, self.strides = torch.cat(places).transpose(0, 1), torch.cat(strides).transpose(0, 1)
            self.shape = maps[0].shape
        boxes, scores, points = (
            torch.cat([head(level).view(batch, size, -1) for head, level in zip(heads, maps, strict=True)], -1)
            for heads, size in ((self.cv2, 16), (self.cv3, 1), (self.cv4, 51))
        )
        total = boxes.shape[2]
        ltrb = self.dfl(boxes.view(batch, 4, 4, total).transpose(2, 1).softmax(1)).view(batch, 4, total)
        low, high = self.places - ltrb[:, :2], self.places + ltrb[:, 2:]
        decoded = torch.cat(((low + high) / 2, high - low), 1) * self.strides
        where = points.view(batch, 17, 3, total)
        xy = (where[:, :, :2] * 2.0 + (self.places - 0.5)) * self.strides
        keypoints = torch.cat((xy, where[:, :, 2:].sigmoid()), 2).view(batch, 51, total)
        y = torch.cat((decoded, scores.sigmoid(), keypoints), 1)
        return y, {"boxes": boxes, "scores": scores, "kpts": points, "feats": maps}


class SCRFD(nn.Module):
    """Faces as mmdet's dense heads give them, a list per kind (deepinsight/insightface, detection/scrfd).

    Returns a tuple of three lists of three maps: scores ``(N, 2, h, w)`` logits, distances ``(N, 8, h, w)``, points
    ``(N, 20, h, w)``, two anchors each, at strides 8, 16 and 32; each stride has a learnt scale.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fpn, self.scales = Pyramid(), nn.ParameterList(nn.Parameter(torch.tensor(1.5)) for _ in range(3))
        self.stem = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(2, WIDTH), nn.ReLU())
        self.cls, self.reg, self.kps = (nn.Conv2d(WIDTH, 2 * size, 3, padding=1) for size in (1, 4, 10))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], ...]:
        maps = [self.stem(level) for level in self.fpn(x)]
        boxes = [self.reg(level) * scale for level, scale in zip(maps, self.scales, strict=True)]
        return [self.cls(level) for level in maps], boxes, [self.kps(level) for level in maps]


class FairMOT(nn.Module):
    """Centres, sizes and identities over deformable convolutions (ifzhang/FairMOT).

    Returns a list of one dict: ``hm`` ``(N, 1, H / 4, W / 4)`` logits, ``wh`` ``(N, 4, ...)``, ``id`` ``(N, 16, ...)``, ``reg``
    ``(N, 2, ...)``, all at stride 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.offset = nn.Sequential(down(3), down()), nn.Conv2d(WIDTH, 27, 3, padding=1)
        self.deform = DeformConv2d(WIDTH, WIDTH, 3, padding=1)
        self.heads = {"hm": 1, "wh": 4, "id": 16, "reg": 2}
        for name, size in self.heads.items():
            setattr(
                self, name, nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, size, 1))
            )

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        x = self.stem(x)
        first, second, mask = torch.chunk(self.offset(x), 3, dim=1)
        x = self.deform(x, torch.cat((first, second), dim=1), torch.sigmoid(mask)).relu()
        return [{name: getattr(self, name)(x) for name in self.heads}]


class DETR(nn.Module):
    """Boxes as answers to 10 queries (facebookresearch/detr), with the answers of an earlier layer for training.

    Returns a dict: ``pred_logits`` ``(N, 10, 4)``, the last class being none; ``pred_boxes`` ``(N, 10, 4)`` from 0 to 1;
    ``aux_outputs``, a list of one dict of the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.query_embed = nn.Sequential(down(3), down(), down(), down()), nn.Embedding(10, WIDTH)
        self.layers = nn.ModuleList(nn.MultiheadAttention(WIDTH, 2, dropout=0.1) for _ in range(2))
        self.class_embed, self.bbox_embed = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)

    def forward(self, samples: torch.Tensor) -> dict[str, object]:
        memory = self.backbone(samples).flatten(2).permute(2, 0, 1)
        queries = self.query_embed.weight.unsqueeze(1).repeat(1, memory.shape[1], 1)
        states = []
        for layer in self.layers:
            queries = queries + layer(queries, memory, memory)[0]
            states.append(queries)
        hs = torch.stack(states).transpose(1, 2)
        classes, boxes = self.class_embed(hs), self.bbox_embed(hs).sigmoid()
        aux = [{"pred_logits": a, "pred_boxes": b} for a, b in zip(classes[:-1], boxes[:-1], strict=True)]
        return {"pred_logits": classes[-1], "pred_boxes": boxes[-1], "aux_outputs": aux}


class MaskRCNN(nn.Module):
    """Objects with masks as torchvision's detectors give them in eval mode, as many as there are.

    Takes a batch or a list of images. Returns a list with one dict per image: ``boxes`` ``(K, 4)``, ``labels`` ``(K,)`` int64,
    ``scores`` ``(K,)``, ``masks`` ``(K, 1, 28, 28)``. K differs from image to image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(down(3), down(), down()), nn.Conv2d(WIDTH, 5, 1)
        self.mask = nn.Linear(WIDTH, 28 * 28)

    def forward(self, images: Sequence[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        results = []
        for image in images:
            features = self.body(image[None])
            found = self.head(features)[0].flatten(1).T
            sy, sx = torch.meshgrid(*(torch.arange(size) * 8.0 for size in features.shape[2:]), indexing="ij")
            centre, half = torch.stack((sx.flatten(), sy.flatten()), 1), 4 + 8 * found[:, 2:4].sigmoid()
            boxes, scores = torch.cat((centre - half, centre + half), 1), found[:, 4].sigmoid()
            keep = nms(boxes, scores, 0.2)
            masks = self.mask(features[0].flatten(1).T[keep]).view(-1, 1, 28, 28).sigmoid()
            labels = torch.ones_like(keep)
            results.append({"boxes": boxes[keep], "labels": labels, "scores": scores[keep], "masks": masks})
        return results
