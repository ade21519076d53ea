"""Random boxes to be found and found ones, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.detection.matching import Truth

CLASSES = 4
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def truths(count: int, random: np.random.Generator, crowds: float) -> list[Truth]:
    made = []
    for _ in range(count):
        size = int(random.integers(0, 9))
        low = random.uniform(0, 80, (size, 2))
        boxes = np.concatenate([low, low + random.uniform(4, 60, (size, 2))], axis=1)
        made.append(Truth(boxes, random.integers(0, CLASSES - 1, size), random.uniform(size=size) < crowds))
    return made


def detections(truth: Truth, random: np.random.Generator, noise: float, most: int = 12) -> Found:
    boxes = [
        truth.boxes + random.normal(0, noise, truth.boxes.shape),
        truth.boxes + random.normal(0, 2 * noise, truth.boxes.shape),
    ]
    low = random.uniform(0, 80, (int(random.integers(0, most)), 2))
    boxes.append(np.concatenate([low, low + random.uniform(4, 60, low.shape)], axis=1))
    every = np.concatenate(boxes)
    every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
    classes = np.concatenate([truth.classes, truth.classes, random.integers(0, CLASSES, len(low))])
    scores = random.integers(1, 40, len(every)) / 40  # many are equal
    return every, scores, classes


def by_pycocotools(data: list[tuple[Truth, Found]]) -> dict[str, float]:
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (truth, (boxes, scores, classes)) in enumerate(data):
        for box, name, crowd in zip(truth.boxes, truth.classes, truth.crowd, strict=True):
            x1, y1, x2, y2 = map(float, box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(name) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
        for box, score, name in zip(boxes, scores, classes, strict=True):
            x1, y1, x2, y2 = map(float, box)
            box_of = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image + 1, "category_id": int(name) + 1, "bbox": box_of, "score": float(score)})
    document = {
        "images": [{"id": place + 1} for place in range(len(data))],
        "annotations": annotations,
        "categories": [{"id": place + 1, "name": str(place)} for place in range(CLASSES)],
    }
    return by_pycocotools_of(document, results)


def by_pycocotools_of(document: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """Return mAP 50:95 and 50 of results for a document, both in COCO's format."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map": evaluation.stats[0], "map_50": evaluation.stats[1]}
