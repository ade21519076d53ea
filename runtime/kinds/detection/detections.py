"""What a detector found in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.images.fit import ImagePlacement

from .layout import KEPT, Layout

Floats = npt.NDArray[np.float32]

NAMED = 3  # classes that a line names


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes with their scores and classes, the highest score first.

    Attributes:
        boxes: ``(K, 4) float32``: x1, y1, x2, y2 in pixels of the original image, upright by its EXIF orientation, inside it.
        scores: ``(K,) float32``, from 0 to 1.
        classes: ``(K,) int64``.
        names: class names by index; empty where the task has no labels.
        landmarks: ``(K, P, 2) float32``: x and y in pixels of the image, which may lie outside; None where there are none.
        keypoints: ``(K, P, 3) float32``: x, y and a score; None likewise.
        coefficients: ``(K, M) float32``: of masks, as the network gives them; None likewise.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...] = ()
    landmarks: Floats | None = field(default=None, repr=False)
    keypoints: Floats | None = field(default=None, repr=False)
    coefficients: Floats | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        """Whether all values are the same."""
        if not isinstance(other, Detections):
            return NotImplemented
        return self.names == other.names and all(
            np.array_equal(mine, theirs) if mine is not None and theirs is not None else mine is theirs
            for mine, theirs in zip(self._arrays, other._arrays, strict=True)
        )

    __hash__ = None  # type: ignore[assignment] # arrays can change

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each box's class, or its index as text where the task has no labels."""
        return tuple(self.names[index] if index < len(self.names) else str(index) for index in self.classes.tolist())

    def __str__(self) -> str:
        """For people: ``3 boxes: 2 car (best 93.1 %), 1 person (80.2 %)``."""
        if not len(self):
            return "no boxes"
        counts: dict[str, int] = {}
        best: dict[str, float] = {}
        for label, score in zip(self.labels, self.scores.tolist(), strict=True):
            counts[label] = counts.get(label, 0) + 1
            best.setdefault(label, score)
        said = [
            f"{count} {_named(label)} ({'best ' if count > 1 else ''}{100 * best[label]:.1f} %)"
            for label, count in list(counts.items())[:NAMED]
        ]
        more = f", {len(counts) - NAMED} more classes" if len(counts) > NAMED else ""
        return f"{len(self)} box{'es' if len(self) > 1 else ''}: {', '.join(said)}{more}"

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict: one entry per box."""
        return {"count": len(self), "boxes": [self._entry(place) for place in range(len(self))]}

    def _entry(self, place: int) -> dict[str, object]:
        entry: dict[str, object] = {
            "box": _rounded(self.boxes[place]),
            "score": round(float(self.scores[place]), 6),
            "class": int(self.classes[place]),
            "label": self.labels[place],
        }
        for name in ("landmarks", "keypoints"):
            if (points := getattr(self, name)) is not None:
                entry[name] = [_rounded(point) for point in points[place]]
        if self.coefficients is not None:
            entry["coefficients"] = [round(float(value), 6) for value in self.coefficients[place]]
        return entry

    @property
    def _arrays(self) -> tuple[npt.NDArray[Any] | None, ...]:
        return self.boxes, self.scores, self.classes, self.landmarks, self.keypoints, self.coefficients


def in_image(rows: Floats, layout: Layout, placement: ImagePlacement, names: tuple[str, ...] = ()) -> Detections:
    """Return what was kept in the frame of the original image.

    Boxes are cut at the image's edges; one of which nothing is left, since it lies in the border of a letterbox, is dropped.
    Parts of an image that a crop left out are still the image's, so boxes may reach into them. Of an image that was cut out of a
    frame, they are in the frame's pixels, and stay inside the part that was cut out.

    Args:
        rows: ``(K, layout.kept_size)``, in pixels of the network's input; what has a score of 0 is padding. Rows of a graph that is
            not ours, of no class or not finite, are left out.
        layout: of the task.
        placement: where the image lies in the network's input.
        names: of the classes.
    """
    with np.errstate(invalid="ignore"):
        known = (rows[:, 4] > 0) & (rows[:, 5] >= 0) & (rows[:, 5] < layout.classes)
    rows = rows[known & np.isfinite(rows).all(axis=1)].astype(np.float32, copy=False)
    top, left = placement.box[:2]
    rows_scale, columns_scale = placement.scale
    scale = np.array([columns_scale, rows_scale], np.float32)
    start = np.array([left, top], np.float32)
    end = np.array(placement.original[::-1], np.float32)
    corners = np.clip((rows[:, :4].reshape(-1, 2, 2) - start) / scale, 0, end)
    inside = (corners[:, 1] > corners[:, 0]).all(axis=1)
    rows, corners = rows[inside], corners[inside]
    landmarks, keypoints, coefficients = np.split(
        rows[:, len(KEPT) :], [2 * layout.landmarks, 2 * layout.landmarks + 3 * layout.keypoints], axis=1
    )
    origin = np.array(placement.origin[::-1], np.float32)
    found_landmarks = (landmarks.reshape(len(rows), -1, 2) - start) / scale + origin if layout.landmarks else None
    found_keypoints = None
    if layout.keypoints:
        found_keypoints = keypoints.reshape(len(rows), -1, 3).copy()
        found_keypoints[..., :2] = (found_keypoints[..., :2] - start) / scale + origin
    return Detections(
        boxes=(corners + origin).reshape(-1, 4),
        scores=rows[:, 4],
        classes=rows[:, 5].astype(np.int64),
        names=names,
        landmarks=found_landmarks,
        keypoints=found_keypoints,
        coefficients=coefficients if layout.coefficients else None,
    )


def _named(label: str) -> str:
    return label if any(character.isalpha() for character in label) else f"of class {label}"


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 3) for value in values]
