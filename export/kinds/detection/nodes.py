"""The same as nodes of a graph: rows from a network's outputs, decoded rows, and the boxes that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.kinds.detection.layout import PARTS, Part
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

from .priors import Priors
from .reading import Reading, Source

if TYPE_CHECKING:
    import onnx_ir as ir


class Steps:
    """Adds nodes to a task's chain under names that do not repeat.

    Args:
        chain: takes the nodes.
        stage: stands in front of every name.
    """

    def __init__(self, chain: Chain, stage: str) -> None:
        self._chain, self._stage = chain, stage
        self._words: dict[str, int] = {}
        self._constants: dict[object, ir.Value] = {}

    def constant(self, content: Any, word: str = "") -> ir.Value:
        """Return an initializer; equal ones without a word of their own are made once."""
        array = np.asarray(content)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        key = word or (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            label = word or f"constant_{len(self._constants)}"
            self._constants[key] = self._chain.constant(f"{self._stage}.{label}", array)
        return self._constants[key]

    def integers(self, *values: int) -> ir.Value:
        """Return an initializer of a few integers."""
        return self.constant(np.array(values, np.int64))

    def add(self, op_type: str, word: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> ir.Value:
        """Add a node; return its first output."""
        self._words[word] = self._words.get(word, 0) + 1
        number = f"_{self._words[word]}" if self._words[word] > 1 else ""
        name = f"{self._stage}_{word}{number}"
        return self._chain.add(op_type, name, *inputs, outputs=outputs, **attributes)

    def add_pair(
        self, op_type: str, word: str, *inputs: ir.Value | None, **attributes: Any
    ) -> tuple[ir.Value, ir.Value]:
        """Add a node with two outputs; return both."""
        first = self.add(op_type, word, *inputs, outputs=2, **attributes)
        return first, self._chain.nodes[-1].outputs[1]

    def columns(self, value: ir.Value, start: int, stop: int, word: str) -> ir.Value:
        """Return columns of the last of three axes."""
        ends = (self.integers(start), self.integers(stop), self.integers(2))
        return self.add("Slice", word, value, *ends)

    def times(self, value: ir.Value, factor: Any, word: str) -> ir.Value:
        """Return a value times a constant; the value itself where that is 1."""
        if np.all(np.asarray(factor) == 1):
            return value
        return self.add("Mul", word, value, self.constant(np.asarray(factor, np.float32)))

    def joined(self, values: Sequence[ir.Value], word: str) -> ir.Value:
        """Return values side by side along the last of three axes."""
        return values[0] if len(values) == 1 else self.add("Concat", word, *values, axis=2)


def row_nodes(steps: Steps, reading: Reading, outputs: Sequence[ir.Value], priors: Priors | None) -> ir.Value:
    """Add the nodes that make rows ``(N, A, options.columns.raw_size)`` of a network's outputs; return them.

    Args:
        steps: take the nodes.
        reading: of the outputs.
        outputs: the network's.
        priors: ``(A, k)``; None where the format has none.
    """
    parts: dict[Part, ir.Value] = {}
    alone = priors is None and "anchors" not in reading.options.held
    whole = [part for part in PARTS if part in reading.options.held] if alone else []
    for entry, places in reading.groups.items():
        levels = [_rows(steps, reading.sources[place], outputs[place]) for place in places]
        group = levels[0] if len(levels) == 1 else steps.add("Concat", "levels", *levels, axis=1)
        if list(entry) == whole:
            return group
        start = 0
        for part in entry:
            stop = start + reading.options.columns.widths[part]
            parts[part] = group if len(entry) == 1 else steps.columns(group, start, stop, part)
            start = stop
    if priors is not None:
        parts["anchors"] = _for_each_image(steps, parts["boxes"], priors)
    elif "anchors" in parts:
        parts["anchors"] = _centred(steps, parts["anchors"], reading.options)
    return steps.joined([parts[part] for part in PARTS if part in parts], "rows")


def _for_each_image(steps: Steps, boxes: ir.Value, priors: Priors) -> ir.Value:
    """Return the priors as often as there are images: ``Expand`` to a shape that begins with the batch."""
    shape = steps.add("Shape", "shape", boxes)
    batch = steps.add("Slice", "batch", shape, steps.integers(0), steps.integers(1), steps.integers(0))
    whole = steps.add("Concat", "priors_shape", batch, steps.integers(*priors.shape), axis=0)
    return steps.add("Expand", "priors", steps.constant(priors[None], "priors"), whole)


def _centred(steps: Steps, anchors: ir.Value, options: DetectionOptions) -> ir.Value:
    """Return anchors that the network gives as centre and size in pixels, x first."""
    if options.axes == "yx":
        anchors = steps.add("Gather", "anchors_x_first", anchors, steps.integers(1, 0, 3, 2), axis=2)
    if options.normalized:
        height, width = options.input_size
        anchors = steps.times(anchors, np.array([width, height, width, height]), "anchor_pixels")
    if options.anchors_format == "cxcywh":
        return anchors
    low, high = steps.columns(anchors, 0, 2, "anchor_low"), steps.columns(anchors, 2, 4, "anchor_high")
    middle = steps.times(steps.add("Add", "anchor_sum", low, high), 0.5, "anchor_centre")
    return steps.joined([middle, steps.add("Sub", "anchor_size", high, low)], "anchors")


def _rows(steps: Steps, source: Source, value: ir.Value) -> ir.Value:
    orders = {"map": [0, 2, 3, 1], "grid": [0, 2, 3, 1, 4], "columns": [0, 2, 1]}
    if source.axes in orders:
        value = steps.add("Transpose", source.axes, value, perm=orders[source.axes])
    if source.axes in ("rows", "columns"):
        return value
    return steps.add("Reshape", "as_rows", value, steps.integers(0, source.rows, source.columns))


def decode_nodes(steps: Steps, rows: ir.Value, options: DetectionOptions, size: tuple[int, int]) -> ir.Value:
    """Add the nodes that decode rows; return ``(N, A, options.columns.decoded_size)``.

    Args:
        steps: take the nodes.
        rows: :func:`row_nodes`'s.
        options: the task's.
        size: height and width of the network's input.
    """
    layout = options.columns
    parts: dict[Part, ir.Value] = {}
    for part in PARTS:
        columns = layout.raw(part)
        if columns.stop > columns.start:
            parts[part] = steps.columns(rows, columns.start, columns.stop, f"raw_{part}")
    pixels = np.array([size[1], size[0]] if options.normalized else [1, 1], np.float32)
    held = [*_boxes(steps, parts, options, pixels), _scores(steps, parts, options)]
    if layout.landmarks:
        held.append(_landmarks(steps, parts, options, pixels))
    if layout.keypoints:
        held.append(_keypoints(steps, parts, options, pixels))
    if layout.coefficients:
        held.append(parts["coefficients"])
    return steps.joined(held, "decoded")


def _boxes(steps: Steps, parts: dict[Part, ir.Value], options: DetectionOptions, pixels: Any) -> list[ir.Value]:
    """Return what the columns of the corners are made of."""
    box, form = parts["boxes"], options.format
    if form == "ltrb":
        return _from_distances(steps, box, parts["anchors"], options)
    if form == "yxyx" or (form == "offsets" and options.axes == "yx"):
        box = steps.add("Gather", "x_first", box, steps.integers(1, 0, 3, 2), axis=2)
    if form in ("xyxy", "yxyx"):
        return [steps.times(box, np.tile(pixels, 2), "box_pixels")]
    if form in ("cxcywh", "xywh"):
        box = steps.times(box, np.tile(pixels, 2), "box_pixels")
        first, second = steps.columns(box, 0, 2, "first"), steps.columns(box, 2, 4, "extent")
        if form == "xywh":
            return [first, steps.add("Add", "high", first, second)]
        return _around(steps, first, second)
    first, second = steps.columns(box, 0, 2, "first"), steps.columns(box, 2, 4, "second")
    place = steps.columns(parts["anchors"], 0, 2, "place")
    if form == "offsets":
        sides = steps.columns(parts["anchors"], 2, 4, "sides")
        moved, grown = (steps.times(v, f, "variance") for v, f in zip((first, second), options.variances, strict=True))
        centre = steps.add("Add", "centre", place, steps.add("Mul", "moved", moved, sides))
        return _around(steps, centre, steps.add("Mul", "extent", sides, steps.add("Exp", "grown", grown)))
    stride = steps.columns(parts["anchors"], 2, 3, "stride")
    if form == "yolox":
        sides = stride
    else:
        sides = steps.columns(parts["anchors"], 3, 5, "sides")
        first = steps.add("Sigmoid", "in_cell", first)
    if form == "yolov5":
        first = steps.add("Sub", "beyond_cell", steps.times(first, 2.0, "doubled"), steps.constant(0.5))
        double = steps.times(steps.add("Sigmoid", "size", second), 2.0, "doubled")
        second = steps.add("Mul", "squared", double, double)
    else:
        second = steps.add("Exp", "size", second)
    centre = steps.add("Add", "centre", place, steps.add("Mul", "moved", first, stride))
    return _around(steps, centre, steps.add("Mul", "extent", second, sides))


def _around(steps: Steps, centre: ir.Value, extent: ir.Value) -> list[ir.Value]:
    half = steps.times(extent, 0.5, "half")
    return [steps.add("Sub", "low", centre, half), steps.add("Add", "high", centre, half)]


def _from_distances(steps: Steps, box: ir.Value, priors: ir.Value, options: DetectionOptions) -> list[ir.Value]:
    if options.bins > 1:
        spread = steps.add("Reshape", "bins", box, steps.integers(0, -1, 4, options.bins))
        weights = steps.add("Softmax", "shares", spread, axis=3)
        products = steps.add(
            "Mul", "weighted", weights, steps.constant(np.arange(options.bins, dtype=np.float32), "bins")
        )
        box = steps.add("ReduceSum", "distances", products, steps.integers(3), keepdims=0)
    if options.distances == "strides":
        box = steps.add("Mul", "distance_pixels", box, steps.columns(priors, 2, 3, "stride"))
    point = steps.columns(priors, 0, 2, "place")
    first, second = steps.columns(box, 0, 2, "left_top"), steps.columns(box, 2, 4, "right_bottom")
    return [steps.add("Sub", "low", point, first), steps.add("Add", "high", point, second)]


def _scores(steps: Steps, parts: dict[Part, ir.Value], options: DetectionOptions) -> ir.Value:
    scores, classes = parts["scores"], options.columns.classes
    if options.scores == "softmax":
        scores = steps.add("Softmax", "softmax", scores, axis=2)
    elif options.scores == "sigmoid":
        scores = steps.add("Sigmoid", "sigmoid", scores)
    if options.background != "none":
        first = 1 if options.background == "first" else 0
        scores = steps.columns(scores, first, first + classes, "without_background")
    if "objectness" in parts:
        present = parts["objectness"]
        if options.scores != "probabilities":
            present = steps.add("Sigmoid", "objectness", present)
        scores = steps.add("Mul", "scores", scores, present)
    return scores


def _landmarks(steps: Steps, parts: dict[Part, ir.Value], options: DetectionOptions, pixels: Any) -> ir.Value:
    """Return landmarks in pixels; x and y alternate, and so do the columns that priors are repeated to."""
    values, count = parts["landmarks"], options.columns.landmarks
    if options.format not in ("offsets", "ltrb", "yolov5"):
        return steps.times(values, np.tile(pixels, count), "landmark_pixels")
    priors = parts["anchors"]
    place = steps.add("Gather", "landmark_place", priors, steps.integers(*[0, 1] * count), axis=2)
    if options.format == "offsets":
        values = steps.times(values, options.variances[0], "landmark_variance")
    if options.format != "ltrb" or options.distances == "strides":
        columns = {"offsets": [2, 3], "yolov5": [3, 4], "ltrb": [2, 2]}[options.format] * count
        unit = steps.add("Gather", "landmark_unit", priors, steps.integers(*columns), axis=2)
        values = steps.add("Mul", "landmark_offset", values, unit)
    return steps.add("Add", "landmarks", place, values)


def _keypoints(steps: Steps, parts: dict[Part, ir.Value], options: DetectionOptions, pixels: Any) -> ir.Value:
    values, count = parts["keypoints"], options.columns.keypoints
    if options.format != "ltrb":
        return steps.times(values, np.tile([*pixels, 1], count), "keypoint_pixels")
    every = np.arange(3 * count)
    xy, shown = every[every % 3 < 2], every[every % 3 == 2]
    points = steps.add("Gather", "keypoint_xy", values, steps.integers(*xy), axis=2)
    scores = steps.add("Gather", "keypoint_scores", values, steps.integers(*shown), axis=2)
    if options.scores == "sigmoid":
        scores = steps.add("Sigmoid", "keypoint_sigmoid", scores)
    stride = steps.columns(parts["anchors"], 2, 3, "stride")
    place = steps.add("Gather", "keypoint_place", parts["anchors"], steps.integers(*[0, 1] * count), axis=2)
    moved = steps.add("Sub", "keypoint_steps", steps.times(points, 2.0, "doubled"), steps.constant(0.5))
    points = steps.add("Add", "keypoints", place, steps.add("Mul", "keypoint_offset", moved, stride))
    order = np.argsort(np.concatenate([xy, shown]), kind="stable")
    return steps.add("Gather", "keypoint_order", steps.joined([points, scores], "xys"), steps.integers(*order), axis=2)
