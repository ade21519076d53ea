"""Tasks: what each output of a multi-task network means and how it is decoded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError, shown

from .activation import ACTIVATIONS, CLASS_KINDS, GIVES_PROBABILITIES, Activation, misfit
from .schema import TASK

Kind = Literal["regression", "binary", "multiclass", "segmentation", "depth", "normals", "raw"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DENSE_KINDS: frozenset[Kind] = frozenset(("segmentation", "depth", "normals"))
"""The kinds with one value per pixel."""
MANY_CLASSES = 256
"""Up to this many classes, indices are uint8; beyond, int32."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED = {"image"}  # the name of the graph's input


@dataclass(frozen=True)
class Task:
    """One named output of a network.

    Attributes:
        name: unique in its network; the name of the graph's output and of ``separate/<name>.onnx``.
        kind: ``regression`` (value = raw * scale + offset), ``binary`` (one logit, or two for a softmax head) or
            ``multiclass`` (one logit per class). Dense kinds, with one value per pixel: ``segmentation`` (one logit per class),
            ``depth`` (value = raw * scale + offset) and ``normals`` (vectors of three components, made unit length). ``raw`` is the
            tensor as it is, of any rank, without a meaning: boxes, landmarks, feature maps.
        labels: class names in the order of the network's outputs; for ``binary``: negative, positive. May be empty.
        unit: the unit of a regression's or depth's value, for example ``years`` or ``metres``.
        output: the network's own key (dict, named tuple) or position (tuple) of this output, or the path to it where outputs nest
            (``det.0``); 0 of a network that returns one tensor. None: the key that has the task's name, or the position in the
            list of tasks.
        columns: of an output that packs several tasks, those that are this task's: the first, and the one after the last
            (channels for maps). None: all of them.
        size: number of values per sample, the last dimension of the raw output; for a dense task its channels (classes, 1 for
            depth, 3 for normals); for ``raw`` the product of ``shape``. 0 until it is known.
        shape: of a ``raw`` task: of its tensor for one image. Empty until it is known, and for other kinds.
        scale: factor from the network's raw output to the unit (regression and depth only).
        offset: added after ``scale``, in the unit (regression and depth only).
        threshold: probability from which a binary task says "positive".
        stride: of a dense task: pixels of the network's input per pixel of its raw output, along both axes; 0 until it is known.
        upsample: whether a decoded graph resizes a dense output to the input's size (bilinear, half-pixel centres, as PyTorch
            with ``align_corners=False``); otherwise it stays at ``stride``.
        argmax: whether a decoded graph returns a segmentation's class indices; otherwise it returns logits.
        valid_range: of depth: least and greatest value in ``unit``; decoded values are clipped to it. None: they are not.
        activation: what the network itself has already applied to the output (classes only): ``none`` (logits), ``sigmoid`` (each
            value is a probability by itself), ``softmax`` (probabilities that sum to 1) or ``log_softmax`` (their logarithms).
            None: not given; the exporter finds it in the network's graph, and readers of a bundle take it for ``none``.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    unit: str | None = None
    output: str | int | None = None
    columns: tuple[int, int] | None = None
    size: int = 0
    shape: tuple[int, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    stride: int = 0
    upsample: bool = True
    argmax: bool = True
    valid_range: tuple[float, float] | None = None
    activation: Activation | None = None

    @property
    def gives_probabilities(self) -> bool:
        """Whether the network's own output is probabilities, which need no decoding."""
        return self.applied in GIVES_PROBABILITIES

    @property
    def applied(self) -> Activation:
        """What the network has applied: :attr:`activation`, or ``none`` where that is not given."""
        return self.activation or "none"

    @property
    def of_values(self) -> bool:
        """Whether each image has numbers that are no classes: a regression's values, or a raw tensor."""
        return self.kind in ("regression", "raw")

    @property
    def dense(self) -> bool:
        """Whether there is one value per pixel."""
        return self.kind in DENSE_KINDS

    def __post_init__(self) -> None:
        """Check the fields against one another.

        Raises:
            TaskError: a field is malformed or does not fit the kind.
        """
        if not _NAME.fullmatch(self.name):
            raise TaskError(
                f"task name {self.name!r}: use a letter or '_' first, then letters, digits, '_', '.' or '-' "
                "(it names a graph output and a file)"
            )
        if self.name in _RESERVED:
            raise TaskError(f"task name {self.name!r} is reserved for the graph's input; choose another")
        if self.kind not in KINDS:
            raise TaskError(f"task {self.name!r}: unknown kind {self.kind!r}; known kinds: {', '.join(KINDS)}")
        scaled = self.kind in _SCALED
        if self.labels and (scaled or self.kind in ("normals", "raw")):
            instead = "a unit, not labels" if scaled else "no labels"
            raise TaskError(f"task {self.name!r}: {_called(self.kind)} has {instead}")
        if not scaled and self.unit is not None:
            raise TaskError(f"task {self.name!r}: only {_SCALED_ARE} has a unit, this is {self.kind}")
        if not scaled and (self.scale, self.offset) != (1.0, 0.0):
            raise TaskError(f"task {self.name!r}: only {_SCALED_ARE} has scale and offset, this is {self.kind}")
        if self.kind == "binary" and len(self.labels) not in (0, 2):
            raise TaskError(
                f"task {self.name!r}: a binary task has two labels (negative, positive), got {len(self.labels)}: "
                f"{', '.join(self.labels)}"
            )
        if len(set(self.labels)) != len(self.labels):
            raise TaskError(f"task {self.name!r}: labels repeat: {', '.join(self.labels)}")
        if not 0.0 < self.threshold < 1.0:
            raise TaskError(f"task {self.name!r}: threshold {self.threshold} is not between 0 and 1")
        if self.applied not in ACTIVATIONS:
            raise TaskError(
                f"task {self.name!r}: unknown activation {self.activation!r}; known ones: {', '.join(ACTIVATIONS)}"
            )
        if self.columns is not None and not 0 <= self.columns[0] < self.columns[1]:
            raise TaskError(
                f"task {self.name!r}: columns {list(self.columns)}: give the first and the one after the last, as in [7, 9]"
            )
        if self.shape and (self.kind != "raw" or math.prod(self.shape) != self.size):
            raise TaskError(
                f"task {self.name!r}: shape {self.shape} does not fit {_called(self.kind)} of {self.size} values"
            )
        self._check_dense()
        self._check_size(self.size)

    def _check_dense(self) -> None:
        for field in _DENSE_FIELDS:
            if getattr(self, field) != getattr(Task, field) and not _has(self.kind, field):
                raise TaskError(f"task {self.name!r}: {_called(self.kind)} has no {field}; {_ONLY[field]}")
        if self.stride < 0:
            raise TaskError(f"task {self.name!r}: stride {self.stride} is negative")
        if self.valid_range is not None:
            low, high = self.valid_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise TaskError(
                    f"task {self.name!r}: valid_range {low:g}, {high:g}: give the least and the greatest depth, two finite "
                    "numbers, the least first"
                )

    def _check_size(self, size: int) -> None:
        if reason := misfit(self.kind, size, self.applied):
            raise TaskError(f"task {self.name!r}, activation {self.activation}: {reason}")
        if not size:  # not known yet
            return
        if self.dense:
            self._check_channels(size)
        if self.kind == "binary" and size not in (1, 2):
            raise TaskError(
                f"task {self.name!r} is binary but the network returns {size} values per sample; a binary head gives 1 (a logit) "
                f"or 2; declare it multiclass if exactly one of {size} classes holds. If they are {size} yes-or-no answers, each "
                "is a binary task of its own: the same output, with columns = [0, 1], [1, 2] and so on"
            )
        if self.kind == "multiclass" and size < 2:
            raise TaskError(
                f"task {self.name!r} is multiclass but the network returns {size} value per sample; "
                "declare it binary or regression"
            )
        if self.kind == "multiclass" and self.labels and len(self.labels) != size:
            raise TaskError(
                f"task {self.name!r} has {len(self.labels)} labels but the network returns {size} values per sample"
            )

    def _check_channels(self, size: int) -> None:
        expected = {"depth": 1, "normals": 3}.get(self.kind)
        if expected is not None and size != expected:
            raise TaskError(
                f"task {self.name!r} is {self.kind} but the network returns {size} channel{'s' if size != 1 else ''}; "
                f"{self.kind} {'is one value' if expected == 1 else 'are three values'} per pixel"
            )
        if self.kind == "segmentation" and size < 2:
            raise TaskError(
                f"task {self.name!r} is segmentation but the network returns {size} channel; it needs one per class, two or more "
                "(for one value per pixel declare it depth)"
            )
        if self.kind == "segmentation" and self.labels and len(self.labels) != size:
            raise TaskError(f"task {self.name!r} has {len(self.labels)} labels but the network returns {size} channels")

    def with_size(self, size: int, stride: int = 0, shape: tuple[int, ...] = ()) -> Task:
        """Return the task with the size of its raw output: values per sample, or a dense task's channels.

        Args:
            size: see :attr:`size`.
            stride: a dense task's; 0: leave it as it is.
            shape: a raw task's; empty: leave it as it is.

        Raises:
            TaskError: the size does not fit the kind or the labels, or there is a stride and the task is not dense.
        """
        self._check_size(size)
        return replace(self, size=size, stride=stride or self.stride, shape=shape or self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; fields that do not apply to the kind are left out."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "size": self.size}
        if self.labels:
            data["labels"] = list(self.labels)
        if self.output is not None:
            data["output"] = self.output
        if self.columns is not None:
            data["columns"] = list(self.columns)
        if self.kind == "raw":
            data["shape"] = list(self.shape)
        if self.kind in _SCALED:
            data |= {"unit": self.unit, "scale": self.scale, "offset": self.offset}
        if self.kind == "binary":
            data["threshold"] = self.threshold
        for field in _DENSE_FIELDS:
            if _has(self.kind, field):
                data[field] = getattr(self, field)
        if self.valid_range is not None:
            data["valid_range"] = list(self.valid_range)
        if self.activation is not None and self.kind in CLASS_KINDS:
            data["activation"] = self.activation
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "task") -> Task:
        """Make a task from a mapping such as :meth:`to_dict`'s or a table of a task file.

        Args:
            data: the fields; ``name`` and ``kind`` are required.
            where: how errors call the place that the mapping comes from.

        Raises:
            TaskError: a field is missing, unknown, of the wrong type or does not fit.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise TaskError(f"{where}: unknown field {shown(unknown[0])}; known fields: {', '.join(sorted(known))}")
        try:
            check(dict(data), TASK)
        except DocumentError as error:
            raise TaskError(f"{where}: {error}") from error
        for field in _DENSE_FIELDS:
            if field in data and data["kind"] in KINDS and not _has(data["kind"], field):
                raise TaskError(f"{where}: {_called(data['kind'])} has no {field}; {_ONLY[field]}")
        ends = data.get("valid_range")
        valid_range = None if ends is None else (float(ends[0]), float(ends[1]))
        columns = None if data.get("columns") is None else tuple(data["columns"])
        lists = {"labels": tuple(data.get("labels", ())), "columns": columns, "shape": tuple(data.get("shape", ()))}
        return cls(**{**data, **lists, "kind": cast("Kind", data["kind"]), "valid_range": valid_range})


_SCALED: frozenset[Kind] = frozenset(("regression", "depth"))
_SCALED_ARE = "a regression or depth"
_ONLY = {
    "stride": "only dense tasks have one",
    "upsample": "only dense tasks have it",
    "argmax": "only segmentation has it",
    "valid_range": "only depth has one",
}
_DENSE_FIELDS = tuple(_ONLY)


def _has(kind: Kind, field: str) -> bool:
    """Return whether a kind has one of the fields of dense tasks."""
    only = {"argmax": "segmentation", "valid_range": "depth"}.get(field)
    return kind in DENSE_KINDS if only is None else kind == only


def _called(kind: Kind) -> str:
    if kind in DENSE_KINDS:
        return kind
    return {"regression": "a regression", "raw": "a raw tensor"}.get(kind, f"a {kind} task")


def check_tasks(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks as a tuple, once it is checked that their names differ.

    Raises:
        TaskError: there is none, or two share a name (names that differ in case alone count as one: they name files).
    """
    checked = tuple(tasks)
    if not checked:
        raise TaskError("no task is given; name at least one")
    seen: dict[str, str] = {}
    for task in checked:
        if (other := seen.get(task.name.lower())) is not None:
            raise TaskError(f"two tasks are called {other!r} and {task.name!r}; names must differ, not only in case")
        seen[task.name.lower()] = task.name
    return checked
