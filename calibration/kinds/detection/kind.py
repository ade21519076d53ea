"""Boxes, judged by COCO's mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import Array, Floats, ImageLabels, Metric
from mtl_deploy.calibration.kinds.rows import RowKind
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.detection.kind import kept, options_of

from .coco import BoxLabels, NoCategoryError, coco_boxes
from .distance import Boxes, Unlike, distances
from .matching import OVERLAPS, Matches, Truth, matches
from .precision import Precision

LEAST_SCORE = 0.001
"""Boxes from this score on count in the average precision, whatever the task's threshold, unless the graph suppresses."""


class Detection(RowKind):
    """Boxes. A row holds how many objects of each class there are, and how each box compares with them.

    The K values of a row are the number of objects by class, then for each of ``top_k`` boxes its score (-1: there is none), its
    class, at which overlaps it is right and at which it does not count, as the bits of a number.
    """

    metrics = {"map": Metric("mAP 50:95"), "map_50": Metric("mAP 50")}
    least = 0.1

    def unit(self, task: Task) -> str | None:
        return None

    def classes(self, task: Task) -> int | None:
        return options_of(task).classes or None

    def same_size(self, task: Task, other: Task) -> bool:
        return options_of(task).classes == options_of(other).classes

    # ---- labels

    def find_labels(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path], preprocessing: Preprocessing
    ) -> tuple[ImageLabels | None, tuple[str, ...]]:
        file = folder if folder.is_file() else folder / f"{task.name}.json"
        if not file.is_file():
            return None, ()
        try:
            return coco_boxes(file, root, images, task.labels, options_of(task).classes, preprocessing)
        except NoCategoryError as error:
            if file != folder:
                raise
            return None, (str(error),)  # the file is for all tasks, and may be for others alone

    def labels_from_array(
        self, task: Task, array: Array, preprocessing: Preprocessing, where: str, positions: npt.NDArray[np.intp]
    ) -> ImageLabels:
        """Read ``(N, G, 5)``: x1, y1, x2, y2 in pixels of the network's input, and the class; NaN where there is no box."""
        if array.ndim != 3 or array.shape[2] != 5 or array.dtype.kind != "f":
            raise ImageError(
                f"{where}: {array.dtype} {array.shape}; boxes are floats (N, most boxes, 5): x1, y1, x2, y2 and the class, NaN for "
                "none"
            )
        count = options_of(task).classes
        truths = []
        for rows in array[positions].astype(np.float64):
            held = rows[np.isfinite(rows).all(axis=1)]
            classes = held[:, 4]
            if ((classes < 0) | (classes >= count) | (classes != np.floor(classes))).any():
                raise ImageError(f"{where}: holds classes that are no index from 0 to {count - 1}")
            truths.append(Truth(held[:, :4], classes.astype(np.int64), np.zeros(len(held), np.bool_)))
        return BoxLabels(tuple(truths))

    # ---- answers

    def answers(self, task: Task, output: Array, signature: Signature) -> list[Boxes]:
        threshold = min(LEAST_SCORE, options_of(task).score_threshold)
        return [kept(task, sample, signature.outputs, threshold) for sample in output]

    def row(self, task: Task, answer: Boxes, truth: Truth) -> Floats:
        boxes = np.clip(answer[:, :4].astype(np.float64), truth.region[:2] * 2, truth.region[2:] * 2)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        scores, classes = answer[inside, 4].astype(np.float64), answer[inside, 5].astype(np.int64)
        found = matches(boxes[inside], scores, classes, truth, options_of(task).classes)
        bits = 2.0 ** np.arange(len(OVERLAPS))
        entries = np.full((options_of(task).top_k, 4), -1.0)
        entries[: len(found.scores)] = np.stack(
            [found.scores, found.classes, bits @ found.right, bits @ found.ignored], 1
        )
        return np.concatenate([found.counts, entries.ravel()])

    def has_truth(self, task: Task, rows: Floats) -> npt.NDArray[np.bool_]:
        # an image without objects shows what is found although it is not there, as long as another one has some
        return np.full(len(rows), bool(rows[:, : options_of(task).classes].any()))

    def measured(self, task: Task, rows: Floats) -> dict[str, float]:
        return _precision(task, rows).figures()

    def drawn(self, task: Task, rows: Floats, counts: Floats) -> Floats:
        return _precision(task, rows).drawn(counts)

    def apart(self, task: Task, answer: Boxes, reference: Boxes) -> tuple[float, float]:
        found = distances(answer, reference, options_of(task).score_threshold)
        return (float(found.mean()), float(found.max())) if found.size else (0.0, 0.0)

    def variation(self, task: Task) -> Unlike:
        return Unlike(options_of(task).score_threshold)

    def spread_row(self, task: Task, expected: Boxes, found: Boxes) -> Floats:
        return np.array([self.apart(task, found, expected)[0]])

    def relative(self, task: Task, rows: Floats) -> float:
        return float(rows[:, 0].mean())


def _precision(task: Task, rows: Floats) -> Precision:
    count = options_of(task).classes
    images = []
    places = np.arange(len(OVERLAPS))[:, None]
    for row in rows:
        entries = row[count:].reshape(-1, 4)
        entries = entries[entries[:, 0] >= 0]
        right, ignored = (((entries[:, column].astype(np.int64) >> places) & 1).astype(np.bool_) for column in (2, 3))
        classes = entries[:, 1].astype(np.int64)
        images.append(Matches(entries[:, 0], classes, right, ignored, row[:count].astype(np.int64)))
    return Precision(images)


KIND = Detection()
