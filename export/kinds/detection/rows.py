"""A network's outputs as rows, and rows decoded, in torch: what a graph's nodes must compute.

Written independently of the nodes and of the runtime's numpy, so that a mistake in one of them shows; in the type of its input, so
that the truth can be had in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.detection.layout import PARTS, Part
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

from .priors import Priors
from .reading import Reading, Source

if TYPE_CHECKING:
    import torch


def as_rows(reading: Reading, outputs: Sequence[torch.Tensor], priors: Priors | None) -> torch.Tensor:
    """Return the outputs as rows ``(N, A, options.columns.raw_size)``, with the priors behind.

    Args:
        reading: of the outputs.
        outputs: the network's, ``(N, ...)`` each.
        priors: ``(A, k)``; None where the format has none.
    """
    import torch

    parts: dict[Part, torch.Tensor] = {}
    for entry, places in reading.groups.items():
        group = torch.cat([_rows(reading.sources[place], outputs[place]) for place in places], dim=1)
        start = 0
        for part in entry:
            width = reading.options.columns.widths[part]
            parts[part] = group[..., start : start + width]
            start += width
    if priors is not None:
        behind = torch.as_tensor(priors).to(outputs[0])
        parts["anchors"] = behind.expand(len(outputs[0]), *behind.shape)
    elif "anchors" in parts:
        parts["anchors"] = _centred(parts["anchors"], reading.options)
    return torch.cat([parts[part] for part in PARTS if part in parts], dim=2)


def _centred(anchors: torch.Tensor, options: DetectionOptions) -> torch.Tensor:
    import torch

    first, second = anchors.chunk(2, dim=2)
    if options.axes == "yx":
        first, second = first.flip(2), second.flip(2)
    if options.normalized:
        pixels = torch.tensor(options.input_size[::-1]).to(anchors)
        first, second = first * pixels, second * pixels
    if options.anchors_format == "xyxy":
        first, second = (first + second) / 2, second - first
    return torch.cat([first, second], dim=2)


def _rows(source: Source, value: torch.Tensor) -> torch.Tensor:
    if tuple(value.shape[1:]) != source.shape:
        raise TaskError(
            f"an output of shape {tuple(source.shape)} has {tuple(value.shape[1:])} at another image size; leave --dynamic-size "
            "out: the rows of a detection are those of one size"
        )
    if source.axes == "map":
        value = value.permute(0, 2, 3, 1)
    elif source.axes == "grid":
        value = value.permute(0, 2, 3, 1, 4)
    elif source.axes == "columns":
        value = value.transpose(1, 2)
    return value.reshape(len(value), source.rows, source.columns)


def decoded_rows(rows: torch.Tensor, options: DetectionOptions, size: tuple[int, int]) -> torch.Tensor:
    """Return decoded rows ``(N, A, options.columns.decoded_size)``.

    Args:
        rows: :func:`as_rows`'s.
        options: the task's.
        size: height and width of the network's input.
    """
    import torch

    layout = options.columns
    parts = dict(zip(PARTS, torch.split(rows, [layout.widths[part] for part in PARTS], dim=2), strict=True))
    pixels = torch.tensor([size[1], size[0]] if options.normalized else [1, 1]).to(rows)
    boxes = _boxes(parts["boxes"], parts["anchors"], options, pixels)
    return torch.cat([boxes, _scores(parts, options), *_points(parts, options, pixels), parts["coefficients"]], dim=2)


def _boxes(box: torch.Tensor, priors: torch.Tensor, options: DetectionOptions, pixels: torch.Tensor) -> torch.Tensor:
    import torch

    form = options.format
    if form == "ltrb":
        if options.bins > 1:
            spread = box.reshape(*box.shape[:2], 4, options.bins).softmax(3)
            box = (spread * torch.arange(options.bins).to(box)).sum(3)
        point, unit = priors[..., :2], priors[..., 2:] if options.distances == "strides" else 1
        first, second = (box * unit).chunk(2, dim=2)
        return torch.cat([point - first, point + second], dim=2)
    if form in ("xyxy", "yxyx"):
        first, second = ((pair if form == "xyxy" else pair.flip(2)) * pixels for pair in box.chunk(2, dim=2))
        return torch.cat([first, second], dim=2)
    first, second = box.chunk(2, dim=2)
    if form == "xywh":
        return torch.cat([first * pixels, first * pixels + second * pixels], dim=2)
    if form == "cxcywh":
        centre, extent = first * pixels, second * pixels
    elif form == "offsets":
        anchor, sides = priors.chunk(2, dim=2)
        first, second = (first, second) if options.axes == "xy" else (first.flip(2), second.flip(2))
        centre = anchor + options.variances[0] * first * sides
        extent = torch.exp(options.variances[1] * second) * sides
    elif form == "yolox":
        corner, stride = torch.split(priors, [2, 1], dim=2)
        centre, extent = first * stride + corner, second.exp() * stride
    else:
        corner, stride, anchor = torch.split(priors, [2, 1, 2], dim=2)
        centre = corner + stride * (first.sigmoid() if form == "yolov3" else 2 * first.sigmoid() - 0.5)
        extent = anchor * (second.exp() if form == "yolov3" else (2 * second.sigmoid()).square())
    return torch.cat([centre - 0.5 * extent, centre + 0.5 * extent], dim=2)


def _scores(parts: Mapping[Part, torch.Tensor], options: DetectionOptions) -> torch.Tensor:
    scores, present = parts["scores"], parts["objectness"]
    if options.scores != "probabilities":
        scores = scores.softmax(2) if options.scores == "softmax" else scores.sigmoid()
        present = present.sigmoid()
    if options.background != "none":
        scores = scores[..., 1:] if options.background == "first" else scores[..., :-1]
    return scores * present if present.shape[2] else scores


def _points(
    parts: Mapping[Part, torch.Tensor], options: DetectionOptions, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    landmarks, keypoints, priors = parts["landmarks"], parts["keypoints"], parts["anchors"][:, :, None]
    if landmarks.shape[2]:
        points = landmarks.reshape(*landmarks.shape[:2], -1, 2)
        if options.format == "offsets":
            points = priors[..., :2] + options.variances[0] * points * priors[..., 2:]
        elif options.format == "ltrb":
            points = priors[..., :2] + (points * priors[..., 2:] if options.distances == "strides" else points)
        elif options.format == "yolov5":
            points = priors[..., :2] + points * priors[..., 3:]
        else:
            points = points * pixels
        landmarks = points.flatten(2)
    if keypoints.shape[2]:
        triples = keypoints.reshape(*keypoints.shape[:2], -1, 3)
        points, shown = triples[..., :2], triples[..., 2:]
        if options.format == "ltrb":
            points = priors[..., :2] + (2 * points - 0.5) * priors[..., 2:]
            shown = shown.sigmoid() if options.scores == "sigmoid" else shown
        else:
            points = points * pixels
        keypoints = torch.cat([points, shown], dim=3).flatten(2)
    return landmarks, keypoints
