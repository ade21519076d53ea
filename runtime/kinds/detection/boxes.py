"""From a detector's rows to boxes in pixels of the network's input, in numpy.

The same arithmetic as the nodes that the exporter writes, for graphs that return rows as the network gives them. Sources of the
formats: offsets from anchors, Liu et al., SSD, ECCV 2016 (variances from its Caffe code; 1 in Lin et al., Focal Loss, ICCV 2017,
and in Tan et al., EfficientDet, CVPR 2020), landmarks beside them, Deng et al., RetinaFace, CVPR 2020; distances, Tian et al.,
FCOS, ICCV 2019, as distributions, Li et al., Generalized Focal Loss, NeurIPS 2020, with landmarks, Guo et al., SCRFD, 2021, and
keypoints, YOLOv8-pose; ``yolov3``, Redmon, Farhadi, 2018; ``yolov5``, ultralytics/yolov5 (YOLOP, YOLOv7); ``yolox``, Ge et al.,
2021.

A row of such a format ends in **priors**, which say where it lies, in pixels of the network's input: ``ltrb`` and ``yolox``: x, y
and stride; ``offsets``: centre, width and height of the anchor; ``yolov3`` and ``yolov5``: x, y and stride of the cell, and the
anchor's width and height. x and y are the point's, or the cell's upper left corner.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .options import DetectionOptions

Rows = npt.NDArray[np.float32]


def decode_rows(rows: npt.NDArray[np.floating], options: DetectionOptions, size: tuple[int, int]) -> Rows:
    """Decode rows as the network gives them.

    Args:
        rows: ``(N, A, options.columns.raw_size)``.
        options: the task's.
        size: height and width of the network's input in pixels.

    Returns:
        ``(N, A, options.columns.decoded_size) float32``: x1, y1, x2, y2 in pixels of the network's input, a probability per class,
        then landmarks and keypoints in those pixels, and mask coefficients. NaN and infinite numbers stay what they are.
    """
    layout = options.columns
    raw = rows.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = _boxes(raw[..., layout.raw("boxes")], raw[..., layout.raw("anchors")], options, size)
        scores = _scores(raw[..., layout.raw("scores")], raw[..., layout.raw("objectness")], options)
        priors = raw[..., layout.raw("anchors")]
        landmarks = _landmarks(raw[..., layout.raw("landmarks")], priors, options, size)
        keypoints = _keypoints(raw[..., layout.raw("keypoints")], priors, options, size)
    return np.concatenate([boxes, scores, landmarks, keypoints, raw[..., layout.raw("coefficients")]], axis=-1)


def sigmoid(values: Rows) -> Rows:
    """Return the logistic function, which neither overflows nor loses small probabilities."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32, copy=False)


def softmax(values: Rows) -> Rows:
    """Return a softmax over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _scores(scores: Rows, objectness: Rows, options: DetectionOptions) -> Rows:
    found = scores
    if options.scores != "probabilities":
        found = softmax(scores) if options.scores == "softmax" else sigmoid(scores)
    if options.background != "none":
        found = found[..., 1:] if options.background == "first" else found[..., :-1]
    if objectness.shape[-1]:
        found = found * (objectness if options.scores == "probabilities" else sigmoid(objectness))
    return found


def _boxes(values: Rows, priors: Rows, options: DetectionOptions, size: tuple[int, int]) -> Rows:
    form = options.format
    if form == "ltrb":
        return _from_distances(values, priors, options)
    if form in ("xyxy", "yxyx"):
        return _in_pixels(values if form == "xyxy" else values[..., [1, 0, 3, 2]], options, size)
    if form in ("cxcywh", "xywh"):
        values = _in_pixels(values, options, size)
        first, extent = values[..., :2], values[..., 2:]
        low = first - extent / 2 if form == "cxcywh" else first
        high = first + extent / 2 if form == "cxcywh" else first + extent
        return np.concatenate([low, high], axis=-1)
    if form == "offsets":
        values = values[..., [1, 0, 3, 2]] if options.axes == "yx" else values
        moved, grown = (np.float32(variance) for variance in options.variances)
        centre = priors[..., :2] + values[..., :2] * moved * priors[..., 2:4]
        extent = priors[..., 2:4] * np.exp(values[..., 2:] * grown)
    else:
        centre, extent = _of_cells(values, priors, form)
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=-1)


def _of_cells(values: Rows, priors: Rows, form: str) -> tuple[Rows, Rows]:
    corner, stride = priors[..., :2], priors[..., 2:3]
    if form == "yolox":
        return corner + values[..., :2] * stride, np.exp(values[..., 2:]) * stride
    anchor, place = priors[..., 3:5], sigmoid(values[..., :2])
    if form == "yolov3":
        return corner + place * stride, np.exp(values[..., 2:]) * anchor
    return corner + (place * 2 - np.float32(0.5)) * stride, (sigmoid(values[..., 2:]) * 2) ** 2 * anchor


def _from_distances(values: Rows, priors: Rows, options: DetectionOptions) -> Rows:
    if options.bins > 1:
        bins = softmax(values.reshape(*values.shape[:-1], 4, options.bins))
        values = np.asarray(bins @ np.arange(options.bins, dtype=np.float32), np.float32)
    if options.distances == "strides":
        values = values * priors[..., 2:3]
    point = priors[..., :2]
    return np.concatenate([point - values[..., :2], point + values[..., 2:]], axis=-1)


def _landmarks(values: Rows, priors: Rows, options: DetectionOptions, size: tuple[int, int]) -> Rows:
    if not values.shape[-1]:
        return values
    points = values.reshape(*values.shape[:-1], -1, 2)
    if options.format == "offsets":
        moved = np.float32(options.variances[0])
        points = priors[..., None, :2] + points * moved * priors[..., None, 2:4]
    elif options.format == "ltrb":
        points = points * priors[..., None, 2:3] if options.distances == "strides" else points
        points = priors[..., None, :2] + points
    elif options.format == "yolov5":
        points = priors[..., None, :2] + points * priors[..., None, 3:5]
    else:
        points = _in_pixels(points, options, size)
    return points.reshape(values.shape)


def _keypoints(values: Rows, priors: Rows, options: DetectionOptions, size: tuple[int, int]) -> Rows:
    if not values.shape[-1]:
        return values
    triples = values.reshape(*values.shape[:-1], -1, 3)
    points, scores = triples[..., :2], triples[..., 2:]
    if options.format == "ltrb":
        points = priors[..., None, :2] + (points * 2 - np.float32(0.5)) * priors[..., None, 2:3]
        scores = sigmoid(scores) if options.scores == "sigmoid" else scores
    else:
        points = _in_pixels(points, options, size)
    return np.concatenate([points, scores], axis=-1).reshape(values.shape)


def _in_pixels(values: Rows, options: DetectionOptions, size: tuple[int, int]) -> Rows:
    """Return coordinates, x and y in turn, in pixels."""
    if not options.normalized:
        return values
    return values * np.array([size[1], size[0]] * (values.shape[-1] // 2), np.float32)
