"""Suppression in the graph: ONNX's ``NonMaxSuppression`` with an output of a fixed shape.

The operator returns as many indices as it keeps, and no graph that is to have a batch and static shapes can end in those. So they
are scattered into a mask over all classes and rows, and ``TopK`` takes the best ``top_k`` of what the mask leaves. What is
missing from ``top_k`` has a score of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

from .nodes import Steps

if TYPE_CHECKING:
    import onnx_ir as ir


def suppression_nodes(steps: Steps, decoded: ir.Value, options: DetectionOptions, rows: int) -> ir.Value:
    """Add the nodes that keep the best boxes; return ``(N, top_k, 6 + extras)``.

    Args:
        steps: take the nodes.
        decoded: rows ``(N, A, decoded_size)``.
        options: the task's.
        rows: A.
    """
    layout = options.columns
    classes, kept = layout.classes, min(options.top_k, rows * layout.classes)
    boxes = steps.columns(decoded, 0, 4, "boxes")
    scores = steps.add("Transpose", "by_class", steps.columns(decoded, 4, 4 + classes, "class_scores"), perm=[0, 2, 1])
    if classes > 1 and options.per_row == "best":
        scores = _of_best_class(steps, scores, classes)
    if options.iou_threshold < 1:
        mask = _kept(steps, boxes, scores, options, rows)
    else:
        mask = steps.add("Greater", "above", scores, _threshold(steps, options))
    left = steps.add("Where", "left", mask, scores, steps.constant(0.0))
    flat = steps.add("Reshape", "flat", left, steps.integers(0, classes * rows))
    best, places = steps.add_pair("TopK", "top_k", flat, steps.integers(kept), axis=1, largest=1, sorted=1)
    of_row = steps.add("Mod", "row", places, steps.integers(rows))
    of_class = steps.add("Cast", "class", steps.add("Div", "class_index", places, steps.integers(rows)), to=1)
    chosen = _gathered(steps, decoded, of_row, layout.decoded_size)
    two = [steps.add("Unsqueeze", "as_column", value, steps.integers(2)) for value in (best, of_class)]
    held = [steps.columns(chosen, 0, 4, "kept_boxes"), *two]
    if layout.extras:
        held.append(steps.columns(chosen, 4 + classes, layout.decoded_size, "kept_extras"))
    found = steps.joined(held, "kept")
    if kept < options.top_k:
        ends = np.array([0, 0, 0, 0, options.top_k - kept, 0], np.int64)
        found = steps.add("Pad", "padded", found, steps.constant(ends), mode="constant")
    return found


def _threshold(steps: Steps, options: DetectionOptions) -> ir.Value:
    return steps.constant(np.array([options.score_threshold]))


def _of_best_class(steps: Steps, scores: ir.Value, classes: int) -> ir.Value:
    """Return scores ``(N, C, A)`` with 0 for all classes of a row but the best, the first of equal ones."""
    best = steps.add("ArgMax", "best_class", scores, axis=1, keepdims=1)
    every = steps.constant(np.arange(classes, dtype=np.int64).reshape(1, -1, 1), "class_numbers")
    return steps.add(
        "Mul", "best_scores", scores, steps.add("Cast", "is_best", steps.add("Equal", "best", best, every), to=1)
    )


def _kept(steps: Steps, boxes: ir.Value, scores: ir.Value, options: DetectionOptions, rows: int) -> ir.Value:
    """Return ``(N, C, A) bool``: what ``NonMaxSuppression`` keeps."""
    most = steps.constant(np.array([min(options.top_k, rows)], np.int64))
    overlap = steps.constant(np.array([options.iou_threshold]))
    kept = steps.add("NonMaxSuppression", "suppress", boxes, scores, most, overlap, _threshold(steps, options))
    zeros = steps.add("Cast", "nothing", steps.add("Less", "below_zero", scores, steps.constant(-np.inf)), to=1)
    first = steps.add("Slice", "one_each", kept, steps.integers(0), steps.integers(1), steps.integers(1))
    flat = steps.add("Reshape", "one_row", steps.add("Cast", "as_float", first, to=1), steps.integers(-1))
    ones = steps.add("Add", "ones", steps.times(flat, 0.0, "zeros"), steps.constant(1.0))
    return steps.add("Greater", "is_kept", steps.add("ScatterND", "scattered", zeros, kept, ones), steps.constant(0.5))


def _gathered(steps: Steps, decoded: ir.Value, of_row: ir.Value, columns: int) -> ir.Value:
    """Return the chosen rows ``(N, kept, columns)``."""
    index = steps.add("Unsqueeze", "row_column", of_row, steps.integers(2))
    every = steps.add("Tile", "row_columns", index, steps.integers(1, 1, columns))
    return steps.add("GatherElements", "chosen", decoded, every, axis=1)
