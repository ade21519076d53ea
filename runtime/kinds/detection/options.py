"""The fields of a detection in a task file: what the network's outputs hold, how boxes are written, what is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import Schema

from .layout import PARTS, Layout, Part

Format = Literal["xyxy", "yxyx", "cxcywh", "xywh", "ltrb", "offsets", "yolov3", "yolov5", "yolox"]
FORMATS: tuple[Format, ...] = get_args(Format)
WITH_ANCHORS: frozenset[Format] = frozenset(("offsets", "yolov3", "yolov5"))
WITH_STRIDES: frozenset[Format] = frozenset(("ltrb", "yolov3", "yolov5", "yolox"))
COORDINATES: frozenset[Format] = frozenset(("xyxy", "yxyx", "cxcywh", "xywh"))
WITH_LANDMARKS: frozenset[Format] = COORDINATES | {"ltrb", "offsets", "yolov5"}
WITH_KEYPOINTS: frozenset[Format] = COORDINATES | {"ltrb"}
PRIORS: dict[str, int] = {"ltrb": 3, "yolox": 3, "offsets": 4, "yolov3": 5, "yolov5": 5}
"""Values that say where a row lies, by format; 0 for the others."""

Scores = Literal["sigmoid", "softmax", "probabilities"]
Background = Literal["none", "first", "last"]
Suppression = Literal["runtime", "graph"]
PerRow = Literal["best", "all"]
Rows = Literal["rows", "columns"]

Axes = Literal["xy", "yx"]
AnchorsFormat = Literal["xyxy", "cxcywh"]
Distances = Literal["strides", "pixels"]

Anchors = tuple[tuple[tuple[float, float], ...], ...]
MOST_KEPT = 10_000
MOST_STRIDE = 1 << 12
MOST_LEVELS = 64

_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 1 << 20}


def _one_of(words: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(words)}


def _list(items: Schema, count: int = 0) -> Schema:
    bounds = {"minItems": count, "maxItems": count} if count else {"maxItems": MOST_LEVELS}
    return {"type": "array", "items": items, **bounds}


def _words() -> Schema:
    return {"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": 256}


_PAIRS: Schema = _list(_list(_list(_NUMBER, 2)))


@dataclass(frozen=True)
class DetectionOptions:
    """What a detection's outputs mean.

    Attributes:
        parts: what each of the task's outputs holds, one entry per output, or one for all of them (levels of one form):
            ``boxes``, ``objectness``, ``scores``, ``landmarks``, ``keypoints``, ``coefficients``, ``anchors``, or several of them
            in one output, joined by ``+`` in the order of its columns, as in ``boxes+objectness+scores``. Levels of one part stand
            in the order of ``strides``.
        format: how a box is written. Coordinates: ``xyxy`` (two corners), ``yxyx``, ``cxcywh`` (centre and size), ``xywh``
            (corner and size). Decoded by a place: ``ltrb`` (distances to the sides from points at ``strides``), ``offsets`` (centre
            and logarithm of the size against ``anchors``, as in SSD, RetinaNet, RetinaFace and EfficientDet), ``yolov3``,
            ``yolov5`` (grid cells with ``anchors``), ``yolox`` (grid cells without).
        scores: what turns the network's scores into probabilities: ``sigmoid``, ``softmax`` (over the classes), or nothing, where
            they are ``probabilities`` already. The same holds for the objectness (which has no softmax).
        background: whether one of the scores is that of no object: the ``first`` or the ``last``.
        normalized: whether coordinates are shares of the network's input, from 0 to 1, and not its pixels.
        axes: ``yx`` where offsets and anchors from a file or an output have y before x, as in EfficientDet.
        strides: pixels of the network's input per place of each level.
        anchors: widths and heights in pixels, per level, as ``[[[16, 16], [32, 32]], [[64, 64], [128, 128]]]``.
        anchors_file: a ``.npy`` file ``(A, 4)`` instead, or ``(1, A, 4)``: one anchor per row, in pixels; its path from the working
            folder. Or the network's own output is one of the task's, called ``anchors`` in ``parts``; it may be ``(1, A, 4)``
            whatever the batch.
        anchors_format: how the anchors of a file or an output are written: ``xyxy`` or ``cxcywh``.
        variances: factors of offsets: of the centre, of the size.
        point: where in its cell a point or an anchor lies: 0.5 is the middle.
        distances: unit of ``ltrb``'s distances: ``strides`` or ``pixels``.
        bins: values per distance, which is their expectation under a softmax (generalized focal loss); 1: the distance itself.
        layout: of an output of rank three: ``rows`` (N, A, k) or ``columns`` (N, k, A). None: what fits, rows first.
        classes: number of classes, without the background. 0: as many as labels, or as columns are left.
        landmarks: number of points of two values; 0: as many as there are columns left.
        keypoints: number of points of three values (x, y, score); 0: likewise.
        coefficients: number of mask coefficients; 0: likewise.
        per_row: whether a row is one object, of its ``best`` class, or one of ``all`` classes whose score is high enough.
        score_threshold: boxes with a score above it are kept.
        iou_threshold: of two boxes of a class that overlap by more than this share of their union, the one with the lower score is
            dropped. 1: none are.
        top_k: the most boxes per image.
        nms: who suppresses: the ``runtime``, or the ``graph``, whose output is then ``(N, top_k, 6 + extras)``.
        input_size: height and width of the network's input; the exporter sets it.
    """

    parts: tuple[str, ...] = option(
        _words(), default=(), form="write boxes,scores", doc="what each output holds, such as boxes or boxes+scores"
    )
    format: Format = option(_one_of(FORMATS), default="xyxy", doc="how a box is encoded")
    scores: Scores = option(
        _one_of(get_args(Scores)), default="probabilities", doc="what turns scores into probabilities"
    )
    background: Background = option(
        _one_of(get_args(Background)), default="none", doc="which score is that of no object"
    )
    normalized: bool = option({"type": "boolean"}, default=False, doc="whether coordinates are shares of the input")
    axes: Axes = option(_one_of(get_args(Axes)), default="xy", doc="whether x or y comes first in offsets and anchors")
    strides: tuple[int, ...] = option(
        _list({"type": "integer"}), default=(), form="write 8,16,32", doc="pixels of the input per cell, for each level"
    )
    anchors: Anchors = option(
        _PAIRS,
        default=(),
        read=json.loads,
        form="write [[[16,16],[32,32]]]",
        doc="widths and heights of the anchors in pixels, for each level",
    )
    anchors_file: str = option({"type": "string"}, default="", doc="a .npy file of anchors, one per row")
    anchors_format: AnchorsFormat = option(
        _one_of(get_args(AnchorsFormat)),
        default="cxcywh",
        doc="how the anchors of anchors_file or of an output are encoded",
    )
    variances: tuple[float, float] = option(
        _list(_NUMBER, 2),
        default=(1.0, 1.0),
        form="write 0.1,0.2",
        doc="factors of offsets: of the centre, and of the size",
    )
    point: float = option(_NUMBER, default=0.5, doc="the position of a point in its cell, from 0 to 1")
    distances: Distances = option(
        _one_of(get_args(Distances)), default="strides", doc="the unit of the distances of ltrb"
    )
    bins: int = option(_COUNT, default=1, doc="values per distance of ltrb, if it is a distribution")
    layout: Rows | None = option(
        {"enum": [None, *get_args(Rows)]},
        default=None,
        read=str,
        doc="whether an output is rows (N, A, k) or columns (N, k, A); without it, found from the shapes",
    )
    classes: int = option(_COUNT, default=0, doc="number of classes, without the background")
    landmarks: int = option(_COUNT, default=0, doc="number of landmarks, of two values each")
    keypoints: int = option(_COUNT, default=0, doc="number of keypoints, of three values each")
    coefficients: int = option(_COUNT, default=0, doc="number of mask coefficients")
    per_row: PerRow = option(_one_of(get_args(PerRow)), default="best", doc="whether a row has one class or several")
    score_threshold: float = option(_NUMBER, default=0.25, doc="boxes with a score above it are kept")
    iou_threshold: float = option(
        _NUMBER, default=0.5, doc="if boxes of a class overlap by more, only the best is kept"
    )
    top_k: int = option(_COUNT, default=100, doc="the largest number of boxes per image")
    nms: Suppression = option(
        _one_of(get_args(Suppression)),
        default="runtime",
        doc="what suppresses overlapping boxes: the runtime, or the graph",
    )
    input_size: tuple[int, ...] = option(
        _list(_COUNT), default=(), doc="height and width that the rows are decoded for"
    )

    @property
    def priors(self) -> int:
        """Number of values that say where a row lies."""
        return PRIORS.get(self.format, 0)

    @property
    def held(self) -> frozenset[str]:
        """All parts that the outputs hold."""
        return frozenset(part for entry in self.parts for part in split(entry))

    @property
    def columns(self) -> Layout:
        """Where everything stands in a row; known once the exporter has seen the network's outputs."""
        return Layout(
            classes=self.classes,
            box=4 * self.bins,
            objectness=int("objectness" in self.held),
            background=int(self.background != "none"),
            landmarks=self.landmarks,
            keypoints=self.keypoints,
            coefficients=self.coefficients,
            priors=self.priors,
        )

    def check(self, name: str, labels: tuple[str, ...] = ()) -> None:
        """Check the fields against one another.

        Args:
            name: the task's.
            labels: its class names.

        Raises:
            TaskError: a field is malformed, or two contradict each other.
        """
        where = f"task {name!r}"
        for entry in self.parts:
            for part in split(entry):
                if part not in PARTS:
                    raise TaskError(
                        f"{where}: parts has {part!r}; an output holds {', '.join(PARTS)}, or several joined by +, as in "
                        "boxes+scores"
                    )
            if len(set(split(entry))) != len(split(entry)):
                raise TaskError(f"{where}: parts {entry!r} names a part twice")
        for needed in ("boxes", "scores") if self.parts else ():
            if needed not in self.held:
                raise TaskError(f"{where}: none of its outputs holds {needed}; parts are {', '.join(self.parts)}")
        self._check_places(where)
        for points, formats in (("landmarks", WITH_LANDMARKS), ("keypoints", WITH_KEYPOINTS)):
            if points in self.held and self.format not in formats:
                raise TaskError(
                    f"{where}: {points} beside boxes in the format {self.format} are not known; they are with "
                    f"{', '.join(form for form in FORMATS if form in formats)}"
                )
        self._check_numbers(where)
        if labels and self.classes not in (0, len(labels)):
            raise TaskError(
                f"{where} has {len(labels)} labels but {self.classes} classes; do not name the background (say background)"
            )

    def _check_places(self, where: str) -> None:
        given = [bool(self.anchors), bool(self.anchors_file), "anchors" in self.held]
        if sum(given) > 1:
            raise TaskError(f"{where}: give one of anchors, anchors_file and an output of anchors")
        if self.format in WITH_ANCHORS and not any(given):
            raise TaskError(
                f"{where}: boxes in the format {self.format} are relative to anchors; give anchors (widths and heights per level, "
                "with strides), anchors_file (a .npy file), or the network's own output that holds them (anchors in parts)"
            )
        if any(given) and self.format not in WITH_ANCHORS:
            raise TaskError(f"{where}: boxes in the format {self.format} have no anchors; leave them out")
        if self.format in ("yolov3", "yolov5") and not self.anchors:
            raise TaskError(f"{where}: {self.format} takes anchors as widths and heights per level")
        needs = self.format in WITH_STRIDES or bool(self.anchors)
        if needs and not self.strides:
            raise TaskError(
                f"{where}: boxes in the format {self.format} are relative to places; give strides, as in [8, 16, 32]"
            )
        if self.strides and not needs:
            raise TaskError(f"{where}: boxes in the format {self.format} have no strides; leave them out")
        if self.anchors and len(self.anchors) != len(self.strides):
            raise TaskError(f"{where}: anchors of {len(self.anchors)} levels, but {len(self.strides)} strides")
        if any(not level for level in self.anchors):
            raise TaskError(f"{where}: a level has no anchors")
        if any(not 0 < stride <= MOST_STRIDE for stride in self.strides):
            raise TaskError(
                f"{where}: strides {list(self.strides)}: each is a number of pixels from 1 to {MOST_STRIDE}"
            )
        if self.bins > 1 and self.format != "ltrb":
            raise TaskError(f"{where}: only ltrb has bins, this is {self.format}")
        if self.normalized and self.format in ("ltrb", "yolov3", "yolov5", "yolox"):
            raise TaskError(f"{where}: {self.format} gives pixels; leave normalized out")

    def _check_numbers(self, where: str) -> None:
        if self.bins < 1:
            raise TaskError(f"{where}: bins {self.bins}: at least 1")
        for field in ("classes", "landmarks", "keypoints", "coefficients"):
            if getattr(self, field) < 0:
                raise TaskError(f"{where}: {field} {getattr(self, field)} is negative")
        if not 0.0 <= self.score_threshold < 1.0:
            raise TaskError(f"{where}: score_threshold {self.score_threshold} is not from 0 to below 1")
        if not 0.0 < self.iou_threshold <= 1.0:
            raise TaskError(
                f"{where}: iou_threshold {self.iou_threshold} is not above 0 and at most 1 (1: none are dropped)"
            )
        if not 1 <= self.top_k <= MOST_KEPT:
            raise TaskError(f"{where}: top_k {self.top_k} is not from 1 to {MOST_KEPT}")
        numbers = (*self.variances, self.point, *(side for level in self.anchors for pair in level for side in pair))
        if not all(math.isfinite(number) for number in numbers) or min(self.variances) <= 0:
            raise TaskError(f"{where}: variances, point and anchors are finite numbers, variances above 0")


def split(entry: str) -> tuple[Part, ...]:
    """Return the parts that one output holds, in the order of its columns."""
    return tuple(cast("Part", part.strip()) for part in entry.split("+"))
