"""What stands in which column of a detector's rows: as the network gives them, decoded, and after suppression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["boxes", "objectness", "scores", "landmarks", "keypoints", "coefficients", "anchors"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What an output of a network can hold; several in one output are joined by ``+`` in their order, as in ``boxes+scores``."""

KEPT = ("x1", "y1", "x2", "y2", "score", "class")
"""The first columns after suppression; landmarks, keypoints and coefficients follow."""


@dataclass(frozen=True)
class Layout:
    """How many of each there are per row, which says where each stands.

    Rows as the network gives them are brought to the order of :data:`PARTS`. Decoded rows hold a box (x1, y1, x2, y2 in pixels of
    the network's input), one probability per class, landmarks (x and y), keypoints (x, y and a score) and mask coefficients.

    Attributes:
        classes: number of classes, without a background.
        box: values of a box as the network gives it: 4, or 4 times the bins of a distribution.
        objectness: 1 where there is an objectness, else 0.
        background: 1 where the network has a score of the background, else 0.
        landmarks: number of points of two values.
        keypoints: number of points of three values.
        coefficients: number of mask coefficients.
        priors: values that say where a row lies, which the exporter puts behind the network's own: see
            :mod:`mtl_deploy.runtime.kinds.detection.boxes`.
    """

    classes: int
    box: int = 4
    objectness: int = 0
    background: int = 0
    landmarks: int = 0
    keypoints: int = 0
    coefficients: int = 0
    priors: int = 0

    @property
    def widths(self) -> Mapping[Part, int]:
        """Columns of each part in rows as the network gives them."""
        return {
            "boxes": self.box,
            "objectness": self.objectness,
            "scores": self.classes + self.background,
            "landmarks": 2 * self.landmarks,
            "keypoints": 3 * self.keypoints,
            "coefficients": self.coefficients,
            "anchors": self.priors,
        }

    def raw(self, part: Part) -> slice:
        """Return where a part stands in rows as the network gives them."""
        start = 0
        for name in PARTS:
            width = self.widths[name]
            if name == part:
                return slice(start, start + width)
            start += width
        raise KeyError(part)

    def decoded(self, part: Part) -> slice:
        """Return where a part stands in decoded rows; an empty slice of what they do not have."""
        start = 0
        for name, width in self._decoded.items():
            if name == part:
                return slice(start, start + width)
            start += width
        return slice(start, start)

    @property
    def _decoded(self) -> Mapping[Part, int]:
        return {
            "boxes": 4,
            "scores": self.classes,
            "landmarks": 2 * self.landmarks,
            "keypoints": 3 * self.keypoints,
            "coefficients": self.coefficients,
        }

    @property
    def raw_size(self) -> int:
        """Columns of rows as the network gives them, with what the exporter puts behind."""
        return sum(self.widths.values())

    @property
    def decoded_size(self) -> int:
        """Columns of decoded rows."""
        return sum(self._decoded.values())

    @property
    def extras(self) -> int:
        """Columns of landmarks, keypoints and coefficients."""
        return 2 * self.landmarks + 3 * self.keypoints + self.coefficients

    @property
    def kept_size(self) -> int:
        """Columns after suppression."""
        return len(KEPT) + self.extras
