"""Labels of keypoints from COCO's JSON: https://cocodataset.org/#format-data, "Keypoint Detection"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import noun
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_bytes

from .truth import Floats, rows_of

_SHOWN = 3
_ID = {"type": ["integer", "string"]}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_SCHEMA = {
    "type": "object",
    "required": ["images", "annotations"],
    "properties": {
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "file_name"],
                "properties": {"id": _ID, "file_name": {"type": "string"}},
            },
        },
        "annotations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image_id"],
                "properties": {
                    "image_id": _ID,
                    "category_id": _ID,
                    "keypoints": _NUMBERS,
                    "bbox": _NUMBERS,
                    "area": {"type": "number"},
                },
            },
        },
        "categories": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": _ID, "keypoints": {"type": "array", "items": {"type": "string"}}},
            },
        },
    },
}


def read_coco(task: Task, file: Path, root: Path, images: Sequence[Path]) -> tuple[Floats, tuple[str, ...]]:
    """Read one object's points for each image: of several the one with the largest area, which a warning says.

    Args:
        task: with its size. Where it and the file's category name the points, names decide which is which.
        file: COCO's JSON.
        root: of the images: ``file_name`` is a path below it, or a bare name that one image has.
        images: their paths.

    Returns:
        rows ``(N, ...)`` as :func:`~mtl_deploy.calibration.kinds.keypoints.truth.rows_of` makes them, and warnings.

    Raises:
        OptionError: the file cannot be read, is no such file, or has no points for any of the images.
    """
    try:
        data = parse_json(read_bytes(file, None))
        check(data, _SCHEMA)
    except (OSError, DocumentError) as error:
        raise OptionError(f"{file}: cannot be read as COCO's keypoints ({describe(error)})") from error
    orders = _orders(task, data, file)
    names = {image["id"]: image["file_name"] for image in data["images"]}
    held: dict[str, list[Mapping[str, Any]]] = {}
    for annotation in data["annotations"]:
        if any(annotation.get("keypoints", ())[2::3]) and annotation["image_id"] in names:
            held.setdefault(names[annotation["image_id"]], []).append(annotation)
    points = np.zeros((len(images), task.size, 3))
    area, box = np.full(len(images), np.nan), np.full((len(images), 2), np.nan)
    several, known = [], 0
    by_name: dict[str, list[str]] = {}
    for name in held:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    for place, path in enumerate(images):
        inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        found = held.get(inside) or _alone(held, by_name.get(path.name, ()))
        if not found:
            continue
        known += 1
        if len(found) > 1:
            several.append(path.name)
        one = max(found, key=_extent)
        points[place] = _points(task, one, orders.get(one.get("category_id")), file)
        area[place] = one.get("area", np.nan)
        if len(one.get("bbox", ())) == 4:
            box[place] = one["bbox"][2:]
    if not known:
        first = next(iter(held), None) or next(iter(names.values()), "none")
        raise OptionError(
            f"{file}: no points for any of the {len(images)} images, such as {images[0].name}; its first is {first!r}"
        )
    warnings = []
    if known < len(images):
        warnings.append(f"{task.name}: {file.name} has no points for {len(images) - known} of {len(images)} images")
    if several:
        shown = ", ".join(several[:_SHOWN]) + (", ..." if len(several) > _SHOWN else "")
        warnings.append(
            f"{task.name}: {len(several)} {noun(len(several), 'image has', 'images have')} several objects ({shown}), of which the "
            "largest counts; keypoints are of one object per image, so cut the objects out first"
        )
    return rows_of(points, area, box), tuple(warnings)


def _alone(held: Mapping[str, list[Mapping[str, Any]]], names: Sequence[str]) -> list[Mapping[str, Any]] | None:
    return held[names[0]] if len(names) == 1 else None


def _extent(annotation: Mapping[str, Any]) -> float:
    box = annotation.get("bbox", ())
    return float(annotation.get("area", box[2] * box[3] if len(box) == 4 else 0))


def _orders(task: Task, data: Mapping[str, Any], file: Path) -> dict[Any, list[int]]:
    """Return by category the places of the task's points among its own, where both have names."""
    orders = {}
    for category in data.get("categories", ()):
        names = category.get("keypoints", ())
        if not (task.labels and names):
            continue
        if lacking := [label for label in task.labels if label not in names]:
            raise OptionError(
                f"{file}: has no point {lacking[0]!r} of task {task.name!r}; its points are {', '.join(names)}; labels of the task "
                "must be these names, in the network's order"
            )
        orders[category["id"]] = [names.index(label) for label in task.labels]
    return orders


def _points(task: Task, annotation: Mapping[str, Any], order: list[int] | None, file: Path) -> Floats:
    numbers = np.asarray(annotation["keypoints"], np.float64)
    count = len(numbers) // 3
    if len(numbers) % 3 or (order is None and count != task.size) or (order is not None and max(order) >= count):
        raise OptionError(
            f"{file}: an annotation of image {annotation['image_id']!r} has {len(numbers)} numbers for keypoints; expected x, y "
            f"and visibility of {task.size} points of task {task.name!r}"
        )
    found = numbers.reshape(-1, 3)
    return found if order is None else found[order]
