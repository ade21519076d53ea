"""Boxes from a file in COCO's format: ``images``, ``annotations`` with ``bbox``, and ``categories``.

Source: https://cocodataset.org/#format-data. ``bbox`` is x, y, width and height in pixels of the image, counted from its upper
left corner; ``iscrowd`` marks a region of many objects. Segmentations and keypoints are not read, nor is ``area``, which only the
figures of small, medium and large objects need.
"""

from __future__ import annotations

import hashlib
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.json_schema import Schema, check
from mtl_deploy.runtime.files.reading import DocumentError, describe, parse_json, read_bytes
from mtl_deploy.runtime.images.fit import place

from .matching import Truth
from .sizes import misshapen

MOST_FILE = 2 << 30
"""Bytes; the annotations of COCO's own training images take 0.5 GiB."""
_SHOWN = 3
_NUMBER: Schema = {"type": "number"}
_FORM: Schema = {
    "type": "object",
    "required": ["images", "annotations", "categories"],
    "properties": {
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "file_name", "width", "height"],
                "properties": {
                    "id": {"type": ["integer", "string"]},
                    "file_name": {"type": "string", "minLength": 1},
                    "width": {"type": "integer", "minimum": 1},
                    "height": {"type": "integer", "minimum": 1},
                },
            },
        },
        "annotations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image_id", "category_id", "bbox"],
                "properties": {
                    "image_id": {"type": ["integer", "string"]},
                    "category_id": {"type": "integer"},
                    "bbox": {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4},
                    "iscrowd": {"enum": [0, 1]},
                },
            },
        },
        "categories": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name"],
                "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
            },
        },
    },
}


class NoCategoryError(OptionError):
    """None of a file's categories is a class of the task."""


@dataclass(frozen=True)
class BoxLabels:
    """The truth of a list of images, in pixels of the network's input.

    Attributes:
        truths: one per image; None for an image that the file does not list.
    """

    truths: tuple[Truth | None, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.truths)

    def read(self, position: int) -> Truth | None:
        """Return the truth of one image; None if it has none."""
        return self.truths[position]

    def part(self, positions: npt.NDArray[np.intp]) -> BoxLabels:
        """Return those of some of the images."""
        return BoxLabels(tuple(self.truths[position] for position in positions))

    @property
    def digest(self) -> str:
        """SHA-256 of all boxes."""
        sha = hashlib.sha256()
        for truth in self.truths:
            sha.update(b"none" if truth is None else len(truth).to_bytes(8, "little"))
            for array in () if truth is None else (truth.boxes, truth.classes, truth.crowd):
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images are listed; one without boxes is known too."""
        return np.array([truth is not None for truth in self.truths], np.bool_)


def coco_boxes(
    file: Path,
    root: Path,
    images: Sequence[Path],
    labels: Sequence[str],
    classes: int,
    preprocessing: Preprocessing,
) -> tuple[BoxLabels, tuple[str, ...]]:
    """Read the boxes of images, and warnings.

    Args:
        file: in COCO's format. An image's ``file_name`` is its path below ``root``, or a bare name that only one image has.
        root: the images' folder.
        images: their paths.
        labels: the task's class names, which categories are called by too, whatever their case; empty: the categories in the order
            of their numbers are the classes.
        classes: how many classes the task has.
        preprocessing: of the network: boxes are brought to its input as images are.

    Raises:
        OptionError: the file cannot be read or is malformed, none of its images is one of these, or its categories are not the
            task's (:class:`NoCategoryError` if none is).
    """
    document = _document(file)
    numbers, skipped = _classes(file, document["categories"], labels, classes)
    entries = document["images"]
    if len({entry["id"] for entry in entries}) < len(entries):
        raise OptionError(f"{file}: two images have the same id")
    found = _matched([entry["file_name"] for entry in entries], root, images)
    used = {entries[place]["id"] for place in found if place is not None}
    if not used:
        first = f"; the first one is {entries[0]['file_name']!r}" if entries else ""
        raise OptionError(f"{file}: none of its {len(entries)} images is one of the {len(images)} in {root}{first}")
    wrong = misshapen(images, [None if place is None else entries[place] for place in found])
    if len(wrong) == sum(place is not None for place in found):
        raise OptionError(f"{file}: its boxes were drawn on images of other shapes: {next(iter(wrong.values()))}")
    found = [None if position in wrong else place for position, place in enumerate(found)]
    boxes: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in used}
    left: dict[str, int] = {}
    malformed = outside = 0
    listed_ids = {entry["id"]: entry for entry in entries}
    stray = [entry["image_id"] for entry in document["annotations"] if entry["image_id"] not in listed_ids]
    for entry in document["annotations"]:
        if entry["image_id"] not in boxes:
            continue
        if entry["category_id"] not in numbers:
            name = skipped.get(entry["category_id"], str(entry["category_id"]))
            left[name] = left.get(name, 0) + 1
        elif entry["bbox"][2] <= 0 or entry["bbox"][3] <= 0:
            malformed += 1
        elif _outside(entry["bbox"], listed_ids[entry["image_id"]]):
            outside += 1
        else:
            boxes[entry["image_id"]].append(entry)
    truths = tuple(
        None if place is None else _truth(entries[place], boxes[entries[place]["id"]], numbers, preprocessing)
        for place in found
    )
    warnings = []
    if wrong:
        warnings.append(
            f"{file.name}: the boxes of {counted(len(wrong), 'image')} are left out, as they were drawn on other shapes "
            f"({_some(list(wrong.values()))})"
        )
    left_out = enumerate(zip(images, found, strict=True))
    if missing := [image.name for position, (image, place) in left_out if place is None and position not in wrong]:
        warnings.append(f"{file.name}: does not list {len(missing)} of {len(images)} images ({_some(missing)})")
    if left:
        listed = [f"{name} {count}" for name, count in sorted(left.items(), key=lambda pair: -pair[1])]
        warnings.append(
            f"{file.name}: left out {counted(sum(left.values()), 'box', 'boxes')} of other categories ({_some(listed)})"
        )
    if malformed:
        warnings.append(f"{file.name}: left out {counted(malformed, 'box', 'boxes')} without an area")
    if outside:
        warnings.append(
            f"{file.name}: left out {counted(outside, 'box', 'boxes')} outside their image; bbox is x, y, width and height in "
            "pixels of an image of the width and height that the file gives"
        )
    if stray:
        ids = _some([repr(number) for number in dict.fromkeys(stray)])
        warnings.append(
            f"{file.name}: left out {counted(len(stray), 'box', 'boxes')} of images that it does not list (image_id {ids})"
        )
    return BoxLabels(truths), tuple(warnings)


def _outside(bbox: Sequence[float], image: Mapping[str, Any]) -> bool:
    left, top, width, height = bbox
    return left >= image["width"] or top >= image["height"] or left + width <= 0 or top + height <= 0


def _document(file: Path) -> Any:
    try:
        document = parse_json(read_bytes(file, MOST_FILE))
        check(document, _FORM)
    except OSError as error:
        raise OptionError(f"{file}: {describe(error)}; boxes are read from a file in COCO's format") from error
    except DocumentError as error:
        raise OptionError(f"{file}: not in COCO's format: {error}") from error
    return document


def _classes(
    file: Path, categories: Sequence[Mapping[str, Any]], labels: Sequence[str], classes: int
) -> tuple[dict[int, int], dict[int, str]]:
    """Return the class of each category, and the names of the others."""
    names = {entry["id"]: str(entry["name"]) for entry in categories}
    if len(names) < len(categories):
        raise OptionError(f"{file}: two categories have the same id")
    if not labels:
        if len(names) != classes:
            raise OptionError(
                f"{file}: {len(names)} categories, but the task has {classes} classes without names; name them (labels)"
            )
        return {number: index for index, number in enumerate(sorted(names))}, {}
    exact = {label: index for index, label in enumerate(labels)}
    loose = {_folded(label): index for index, label in enumerate(labels)}
    found = {number: exact.get(name, loose.get(_folded(name))) for number, name in names.items()}
    numbers = {number: index for number, index in found.items() if index is not None}
    if not numbers:
        raise NoCategoryError(
            f"{file}: none of its categories is a class of the task; they are {', '.join(names.values())}, the classes "
            f"{', '.join(labels)}"
        )
    return numbers, {number: name for number, name in names.items() if number not in numbers}


def _truth(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    numbers: Mapping[int, int],
    preprocessing: Preprocessing,
) -> Truth:
    """Return an image's boxes in the frame of the network's input, cut at the image's edges."""
    height, width = image["height"], image["width"]
    spot = place(height, width, preprocessing)
    top, left, inner_height, inner_width = spot.box
    xywh = np.array([entry["bbox"] for entry in annotations], np.float64).reshape(-1, 4)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    corners = np.clip(corners, 0, [width, height, width, height])
    scale = np.array([inner_width / width, inner_height / height] * 2)
    return Truth(
        boxes=corners * scale + [left, top, left, top],
        classes=np.array([numbers[entry["category_id"]] for entry in annotations], np.int64),
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in annotations], np.bool_),
        region=(left, top, left + inner_width, top + inner_height),
    )


def _matched(names: Sequence[str], root: Path, images: Sequence[Path]) -> list[int | None]:
    """Return for each image the place of the name that means it; a bare name means the only image that has it."""
    paths: dict[str, int] = {}
    bare: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        paths.setdefault(_folded(name), number)
        bare.setdefault(_folded(posixpath.basename(name.replace("\\", "/"))), []).append(number)
    same: dict[str, int] = {}
    for image in images:
        same[_folded(image.name)] = same.get(_folded(image.name), 0) + 1
    found: list[int | None] = []
    for image in images:
        inside = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
        of_name = bare.get(_folded(image.name), [])
        only = of_name[0] if len(of_name) == 1 and same[_folded(image.name)] == 1 else None
        found.append(paths.get(_folded(inside), only))
    return found


def _folded(name: str) -> str:
    """Return what all spellings of a name have in common: its case, composed or not, with ``./`` in front or not."""
    composed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return posixpath.normpath(unicodedata.normalize("NFC", composed.casefold()))


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
