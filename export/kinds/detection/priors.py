"""Where each row of a detector lies: points, grid cells and anchors, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

from .reading import Reading

Priors = npt.NDArray[np.float32]


def priors(
    name: str, reading: Reading, size: tuple[int, int], anchors: npt.NDArray[np.floating] | None = None
) -> Priors | None:
    """Return what stands behind each row, see :mod:`mtl_deploy.runtime.kinds.detection.boxes`.

    Rows go level by level, in a level row by row of its places, and at each place anchor by anchor: the order in which detectors
    turn maps into rows (``permute(0, 2, 3, 1)``), except those that put anchors first, whose outputs are read as ``grid``.

    Args:
        name: the task's.
        reading: of its outputs.
        size: height and width of the network's input.
        anchors: ``(A, 4)`` or ``(1, A, 4)``, from a file, as ``anchors_format`` and ``axes`` say.

    Returns:
        ``(A, k)``; None where the format has none, or the network gives them itself.

    Raises:
        TaskError: there are not as many as rows.
    """
    options = reading.options
    if not options.priors or "anchors" in options.held:
        return None
    if anchors is not None:
        return _given(name, options, anchors, size, reading.rows)
    levels = reading.levels or [(-(-size[0] // stride), -(-size[1] // stride)) for stride in options.strides]
    expected = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in options.strides]
    if levels != expected:
        raise TaskError(
            f"task {name!r}: its levels have {_listed(levels)} places; strides {list(options.strides)} of an image of "
            f"{size[0]}x{size[1]} give {_listed(expected)}"
        )
    each = 1  # rows per place without anchors of their own, as in SCRFD
    if not options.anchors and reading.rows % (places := sum(height * width for height, width in levels)) == 0:
        each = reading.rows // places
    found = np.concatenate([_level(options, place, sides, each) for place, sides in enumerate(levels)])
    if len(found) != reading.rows:
        raise TaskError(
            f"task {name!r}: its outputs have {reading.rows} rows; strides {list(options.strides)} of an image of "
            f"{size[0]}x{size[1]} give {_listed(levels)} places"
            + (f" with {', '.join(str(len(level)) for level in options.anchors)} anchors" if options.anchors else "")
            + f", {len(found)} rows in all"
        )
    return found


def _level(options: DetectionOptions, level: int, sides: tuple[int, int], each: int) -> Priors:
    stride = options.strides[level]
    point = 0.0 if options.format in ("yolov3", "yolov5", "yolox") else options.point
    down, across = np.meshgrid(*(np.arange(side) + point for side in sides), indexing="ij")
    places = np.stack([across, down], axis=2).reshape(-1, 1, 2) * stride
    count = len(places)
    if options.format in ("ltrb", "yolox"):
        points = np.concatenate([places[:, 0], np.full((count, 1), stride)], axis=1)
        return points.repeat(each, axis=0).astype(np.float32)
    pairs = np.array(options.anchors[level], np.float64)[None].repeat(count, axis=0)
    parts = [places.repeat(pairs.shape[1], axis=1), pairs]
    if options.format != "offsets":
        parts.insert(1, np.full((*pairs.shape[:2], 1), stride))
    return np.concatenate(parts, axis=2).reshape(count * pairs.shape[1], -1).astype(np.float32)


def _given(
    name: str, options: DetectionOptions, anchors: npt.NDArray[np.floating], size: tuple[int, int], rows: int
) -> Priors:
    found = anchors[0] if anchors.ndim == 3 and len(anchors) == 1 else anchors
    where = options.anchors_file
    if found.shape != (rows, 4) or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise TaskError(
            f"task {name!r}: {where} holds {anchors.dtype} {anchors.shape}; expected finite numbers of shape ({rows}, 4), an "
            "anchor for each row"
        )
    values = found.astype(np.float64)
    if options.axes == "yx":
        values = values[:, [1, 0, 3, 2]]
    if options.normalized:
        values = values * [size[1], size[0], size[1], size[0]]
    if options.anchors_format == "xyxy":
        low, high = values[:, :2], values[:, 2:]
        values = np.concatenate([(low + high) / 2, high - low], axis=1)
    if (values[:, 2:] <= 0).any():
        raise TaskError(
            f"task {name!r}: {where} has anchors without an area; are they {options.anchors_format}, "
            f"{'y' if options.axes == 'yx' else 'x'} first? (anchors_format, axes)"
        )
    return values.astype(np.float32)


def _listed(levels: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in levels)
