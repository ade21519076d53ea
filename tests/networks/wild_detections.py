"""The public networks of ``wild`` that detect, their outputs declared as boxes, and their boxes as their own code has them.

``TASKS`` has the table of each network; :func:`theirs` its rows as its repository decodes them, written here once more, in numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.float64]

_HEAD = """[[task]]
name = "found"
kind = "detection"
"""
TASKS: dict[str, str] = {
    "yolop": _HEAD
    + """output = "0.0"
labels = ["vehicle"]
parts = ["boxes+objectness+scores"]
format = "cxcywh"
""",
    "yolopv2": _HEAD
    + """output = ["0.0.0", "0.0.1", "0.0.2"]
parts = ["boxes+objectness+scores"]
format = "yolov5"
scores = "sigmoid"
strides = [8, 16, 32]
anchors = [[[3, 9], [5, 11], [4, 20]], [[7, 18], [6, 39], [12, 31]], [[19, 50], [38, 81], [68, 157]]]
""",
    "hybridnets": _HEAD
    + """output = [1, 2, 3]
labels = ["vehicle"]
parts = ["boxes", "scores", "anchors"]
format = "offsets"
axes = "yx"
anchors_format = "xyxy"
""",
    "retinaface": _HEAD
    + """output = [0, 1, 2]
labels = ["face"]
parts = ["boxes", "scores", "landmarks"]
format = "offsets"
background = "first"
variances = [0.1, 0.2]
strides = [8, 16, 32]
anchors = [[[16, 16], [32, 32]], [[64, 64], [128, 128]], [[256, 256], [512, 512]]]
""",
    "scrfd": _HEAD
    + f"""output = {[f"{part}.{level}" for part in range(3) for level in range(3)]}
labels = ["face"]
parts = {["scores"] * 3 + ["boxes"] * 3 + ["landmarks"] * 3}
format = "ltrb"
scores = "sigmoid"
strides = [8, 16, 32]
point = 0.0
""",
    "yolopose": _HEAD
    + """output = 0
labels = ["person"]
parts = ["boxes+scores+keypoints"]
format = "cxcywh"
keypoints = 17
""",
    "detr": _HEAD
    + """output = ["pred_boxes", "pred_logits"]
labels = ["cat", "dog", "bird"]
parts = ["boxes", "scores"]
format = "cxcywh"
normalized = true
scores = "softmax"
background = "last"
iou_threshold = 1.0
""",
}
ANCHORS = [[[3, 9], [5, 11], [4, 20]], [[7, 18], [6, 39], [12, 31]], [[19, 50], [38, 81], [68, 157]]]


def theirs(name: str, network: torch.nn.Module, result: Any, size: tuple[int, int]) -> Rows:
    """Return a network's own rows for its result: corners in pixels, a probability per class, then points.

    Args:
        name: the network's.
        network: the network.
        result: what it returned.
        size: height and width of its input.
    """
    height, width = size

    def array(value: torch.Tensor) -> Rows:
        return value.detach().double().numpy()

    if name == "yolop":
        rows = array(result[0][0])
        return np.concatenate([corners(rows[..., :4]), rows[..., 4:5] * rows[..., 5:]], axis=2)
    if name == "yolopose":
        rows = array(result[0]).transpose(0, 2, 1)
        return np.concatenate([corners(rows[..., :4]), rows[..., 4:]], axis=2)
    if name == "detr":
        boxes, logits = array(result["pred_boxes"]), array(result["pred_logits"])
        powers = np.exp(logits - logits.max(axis=2, keepdims=True))
        return np.concatenate(
            [corners(boxes) * [width, height, width, height], (powers / powers.sum(axis=2, keepdims=True))[..., :-1]], 2
        )
    if name == "hybridnets":  # BBoxTransform of its utils
        offsets, anchors = array(result[1]), array(result[3])
        y, x = (anchors[..., 0] + anchors[..., 2]) / 2, (anchors[..., 1] + anchors[..., 3]) / 2
        high, wide = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
        h, w = np.exp(offsets[..., 2]) * high, np.exp(offsets[..., 3]) * wide
        y, x = offsets[..., 0] * high + y, offsets[..., 1] * wide + x
        return np.concatenate(
            [np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=2), array(result[2])], axis=2
        )
    if name == "retinaface":  # PriorBox, decode and decode_landm of its layers and utils
        priors = []
        for step, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
            for row in range(-(-height // step)):
                for column in range(-(-width // step)):
                    centre = [(column + 0.5) * step / width, (row + 0.5) * step / height]
                    priors += [[*centre, side / width, side / height] for side in sizes]
        prior = np.array(priors)
        offsets, scores, points = (array(part) for part in result)
        centre = prior[:, :2] + offsets[..., :2] * 0.1 * prior[:, 2:]
        extent = prior[:, 2:] * np.exp(offsets[..., 2:] * 0.2)
        landmarks = [prior[:, :2] + points[..., 2 * place : 2 * place + 2] * 0.1 * prior[:, 2:] for place in range(5)]
        whole = np.concatenate([centre - extent / 2, centre + extent / 2], axis=2) * [width, height, width, height]
        marks = [each * [width, height] for each in landmarks]
        return np.concatenate([whole, scores[..., 1:], *marks], axis=2)
    if name == "scrfd":  # distance2bbox and distance2kps, two anchors at each place
        levels = []
        for stride, scores, boxes, points in zip((8, 16, 32), *result, strict=True):
            count, _, rows, columns = scores.shape
            down, across = np.mgrid[:rows, :columns] * stride
            places = np.stack([across, down], axis=2).reshape(-1, 1, 2).repeat(2, axis=1).reshape(1, -1, 2)
            box = array(boxes.permute(0, 2, 3, 1).reshape(count, -1, 4)) * stride
            marks = array(points.permute(0, 2, 3, 1).reshape(count, -1, 5, 2)) * stride + places[:, :, None]
            score = 1 / (1 + np.exp(-array(scores.permute(0, 2, 3, 1).reshape(count, -1, 1))))
            corner = [places - box[..., :2], places + box[..., 2:]]
            levels.append(np.concatenate([*corner, score, marks.reshape(count, -1, 10)], axis=2))
        return np.concatenate(levels, axis=1)
    assert name == "yolopv2"  # split_for_trace_model of its utils, with rows in our order: places first
    levels = []
    for maps, pairs, stride in zip(result[0][0], ANCHORS, (8, 16, 32), strict=True):
        count, _, rows, columns = maps.shape
        values = 1 / (1 + np.exp(-array(maps.view(count, 3, 6, rows, columns).permute(0, 3, 4, 1, 2))))
        down, across = np.mgrid[:rows, :columns]
        xy = (values[..., :2] * 2 - 0.5 + np.stack([across, down], axis=2)[:, :, None]) * stride
        wh = (values[..., 2:4] * 2) ** 2 * np.array(pairs)
        boxes = np.concatenate([xy - wh / 2, xy + wh / 2, values[..., 4:5] * values[..., 5:]], axis=4)
        levels.append(boxes.reshape(count, -1, 5))
    return np.concatenate(levels, axis=1)


def corners(rows: Rows) -> Rows:
    """Return corners from centres and sizes."""
    half = rows[..., 2:] / 2
    return np.concatenate([rows[..., :2] - half, rows[..., :2] + half], axis=-1)
