"""Which place of the maps answers for which object, and the losses of the three tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from network import STRIDES, decoded, places
from rooms import Objects
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

LARGE = 48.0  # pixels of an object's longer side from which the coarse level answers for it
RADIUS = 1.5  # strides around an object's middle within which places answer for it: FCOS's center sampling
WEIGHTS = {
    "boxes": 1.0,
    "scores": 1.0,
    "floor": 1.0,
    "conditions": 0.5,
}  # of the losses, so that they have a similar size


@dataclass(frozen=True)
class Truth:
    """The labels of a batch, as the losses take them.

    Attributes:
        boxes: ``(N, A, 4)``: the object that each place answers for: x1, y1, x2, y2 in pixels; zeros where it answers for none.
        classes: ``(N, A) int64``: its class; -1: none.
        floor: ``(N, 1, H, W) float32``: 1 where the floor is.
        conditions: ``(N, CONDITIONS) float32``: 1 for those that hold.
    """

    boxes: Tensor
    classes: Tensor
    floor: Tensor
    conditions: Tensor


def assign(objects: Objects, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the box ``(A, 4)`` and class ``(A,)`` that each place answers for; class -1 for none.

    A place answers for an object if it lies inside its box, within RADIUS strides of its middle, and at the level of its size. Of
    several it answers for the smallest, as in FCOS.
    """
    middles, strides = places(size)
    boxes = torch.from_numpy(objects.boxes).float()
    if not len(boxes):
        return torch.zeros(len(middles), 4), torch.full((len(middles),), -1)
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = ((middles[:, None] > boxes[None, :, :2]) & (middles[:, None] < boxes[None, :, 2:])).all(dim=2)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = ((middles[:, None] - centre[None]).abs() < RADIUS * strides[:, None, None]).all(dim=2)
    fits = (sides.amax(dim=1) >= LARGE)[None] == (strides == max(STRIDES))[:, None]
    areas = torch.where(inside & near & fits, sides.prod(dim=1)[None], torch.inf)
    least, which = areas.min(dim=1)
    answers = least.isfinite()
    classes = torch.from_numpy(objects.classes)[which]
    return torch.where(answers[:, None], boxes[which], 0.0), torch.where(answers, classes, -1)


def losses_of(outputs: dict[str, Tensor], truth: Truth) -> dict[str, Tensor]:
    """Return the four losses: of boxes, scores, floor and conditions.

    Boxes have the generalized IoU's loss (Rezatofighi et al., CVPR 2019, arXiv 1902.09630), each place weighted by its best score.
    Scores have the quality focal loss (Li et al., NeurIPS 2020, arXiv 2006.04388, equation 3 with beta 2), whose aim is the box's
    overlap with the truth, so that a high score means a box that fits. Both are per place that answers for an object.
    """
    size = truth.floor.shape[-2:]
    boxes, logits = decoded(outputs, (size[0], size[1]))
    answers = truth.classes >= 0
    count = answers.sum().clamp(min=1)
    aim = torch.zeros_like(logits)
    found, wanted = boxes[answers], truth.boxes[answers]
    aim[answers] = nn.functional.one_hot(truth.classes[answers], logits.shape[-1]) * overlap(found, wanted)[:, None]
    scores = logits.sigmoid()
    entropies = nn.functional.binary_cross_entropy_with_logits(logits, aim, reduction="none")
    weight = scores.detach()[answers].amax(dim=1) if len(found) else found.new_zeros(0)
    misfits = generalized_box_iou_loss(found, wanted, reduction="none")
    floor = nn.functional.interpolate(outputs["floor"], size=size, mode="bilinear", align_corners=False)
    entropy = nn.functional.binary_cross_entropy_with_logits
    return {
        "boxes": (misfits * weight).sum() / weight.sum().clamp(min=1e-6),
        "scores": ((aim - scores) ** 2 * entropies).sum() / count,
        "floor": entropy(floor, truth.floor),
        "conditions": entropy(outputs["conditions"], truth.conditions),
    }


def overlap(found: Tensor, wanted: Tensor) -> Tensor:
    """Return ``(P,)``: the intersection over union of pairs of boxes ``(P, 4)``, without a gradient."""
    with torch.no_grad():
        low, high = torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])
        both = (high - low).clamp(min=0).prod(dim=1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (found, wanted)]
        return both / (areas[0] + areas[1] - both).clamp(min=1e-6)


def mirrored(objects: Objects, width: int) -> Objects:
    """Return the objects of the image mirrored left to right."""
    boxes = objects.boxes.copy()
    boxes[:, [0, 2]] = width - objects.boxes[:, [2, 0]]
    return Objects(boxes, objects.classes, objects.areas)
