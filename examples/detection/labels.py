"""The files of the data set: images, boxes as COCO's JSON, the floor as PNG, the conditions as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rooms import CLASSES, CONDITIONS, Objects, Rooms


def write(rooms: Rooms, folder: Path) -> None:
    """Write ``images/NAME.png``, ``labels/objects.json``, ``labels/floor/NAME.png`` and ``labels/labels.csv``."""
    for path in (folder / "images", folder / "labels" / "floor"):
        path.mkdir(parents=True, exist_ok=True)
    names = [f"{i:04d}.png" for i in range(len(rooms))]
    for name, image, floor in zip(names, rooms.images, rooms.floor, strict=True):
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(floor.astype(np.uint8)).save(folder / "labels" / "floor" / name)
    (folder / "labels" / "objects.json").write_text(json.dumps(coco(rooms, names), indent=1), "utf-8")
    with (folder / "labels" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *CONDITIONS])
        rows.writerows([name, *held.astype(int)] for name, held in zip(names, rooms.conditions, strict=True))


def coco(rooms: Rooms, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return boxes as COCO writes them (https://cocodataset.org/#format-data): x, y, width, height; ids from 1.

    ``area`` is the number of pixels of an object that are seen.
    """
    height, width = rooms.images.shape[1:3]
    images = [
        {"id": place, "file_name": name, "width": width, "height": height} for place, name in enumerate(names, start=1)
    ]
    found: list[dict[str, Any]] = []
    for place, objects in enumerate(rooms.objects, start=1):
        for (x1, y1, x2, y2), kind, area in zip(
            objects.boxes.tolist(), objects.classes.tolist(), objects.areas.tolist(), strict=True
        ):
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": place,
                    "category_id": kind + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": found, "categories": categories}


def read(folder: Path) -> Rooms:
    """Read back what :func:`write` wrote."""
    document = json.loads((folder / "labels" / "objects.json").read_text("utf-8"))
    of: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for entry in document["annotations"]:
        of[entry["image_id"]].append(entry)
    names = [image["file_name"] for image in document["images"]]
    with (folder / "labels" / "labels.csv").open(newline="", encoding="utf-8") as file:
        held = {row["file"]: [row[name] == "1" for name in CONDITIONS] for row in csv.DictReader(file)}
    return Rooms(
        images=np.stack([np.asarray(Image.open(folder / "images" / name)) for name in names]),
        objects=tuple(_objects(entries) for entries in of.values()),
        floor=np.stack([np.asarray(Image.open(folder / "labels" / "floor" / name)) == 1 for name in names]),
        conditions=np.array([held[name] for name in names], np.bool_),
    )


def _objects(entries: list[dict[str, Any]]) -> Objects:
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = np.array([entry["category_id"] - 1 for entry in entries], np.int64)
    return Objects(boxes, classes, np.array([entry["area"] for entry in entries], np.int64))
