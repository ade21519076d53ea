"""Tasks: what each output of a multi-task network means and how it is decoded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import Schema, check
from mtl_deploy.runtime.files.reading import DocumentError, shown

from .activation import ACTIVATIONS, GIVES_PROBABILITIES, Activation
from .kinds.base import SHARED, TaskKind
from .kinds.options import option_names, option_schemas, owners, read_options, write_options
from .kinds.registry import KINDS, task_kind, those_with
from .schema import TASK

MANY_CLASSES = 256
"""Up to this many classes, indices are uint8; beyond, int32."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED = {"image"}  # the name of the graph's input


@dataclass(frozen=True)
class Task:
    """One named output of a network.

    Attributes:
        name: unique in its network; the name of the graph's output and of ``separate/<name>.onnx``.
        kind: one of :data:`~mtl_deploy.runtime.bundle.kinds.registry.KINDS`: ``regression`` (value = raw *
            scale + offset), ``binary`` (one logit, or two for a softmax head) or
            ``multiclass`` (one logit per class). Dense kinds, with one value per pixel: ``segmentation`` (one logit per class),
            ``depth`` (value = raw * scale + offset) and ``normals`` (vectors of three components, made unit length). ``raw`` is the
            tensor as it is, of any rank, without a meaning: boxes, landmarks, feature maps.
        labels: class names in the order of the network's outputs; for ``binary``: negative, positive. May be empty.
        unit: the unit of a regression's or depth's value, for example ``years`` or ``metres``.
        output: the network's own key (dict, named tuple) or position (tuple) of this output, or the path to it in nested outputs
            (``det.0``); 0 of a network that returns one tensor. None: the key that has the task's name, or the position in the
            list of tasks. Several, for a kind whose raw output is made from several.
        columns: the part of an output that packs several tasks: this task's first column, and the one after its last
            (channels for maps). None: all columns.
        size: number of values per sample, the last dimension of the raw output; for a dense task its channels (classes, 1 for
            depth, 3 for normals); for ``raw`` the product of ``shape``. 0 until it is known.
        shape: of a ``raw`` task: of its tensor for one image. Empty until it is known, and for other kinds.
        scale: factor from the network's raw output to the unit (regression, depth and vector).
        offset: added after ``scale``, in the unit (regression, depth and vector).
        threshold: the probability from which on a class or label holds (binary, multilabel, ordinal and mask).
        stride: of a dense task: pixels of the network's input per pixel of its raw output, along both axes; 0 until it is known.
        upsample: whether a decoded graph resizes a dense output to the input's size (bilinear, half-pixel centres, as PyTorch
            with ``align_corners=False``); otherwise it stays at ``stride``.
        argmax: whether a decoded graph returns a segmentation's class indices; otherwise it returns logits.
        valid_range: of depth: least and greatest value in ``unit``; decoded values are clipped to it. None: they are not.
        activation: what the network itself has already applied to the output (classes only): ``none`` (logits), ``sigmoid`` (each
            value is a probability by itself), ``softmax`` (probabilities that sum to 1) or ``log_softmax`` (their logarithms).
            None: not given; the exporter finds it in the network's graph, and readers of a bundle take it for ``none``.
        options: the fields that only this kind has, in the dataclass that it declares; None where it has none. A task file and
            the manifest list them with the other fields.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    unit: str | None = None
    output: str | int | tuple[str | int, ...] | None = None
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
    options: Any = None

    @property
    def of(self) -> TaskKind:
        """What the task's kind makes of its fields."""
        return task_kind(self.kind)

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
        return self.of.of_values

    @property
    def dense(self) -> bool:
        """Whether there is one value per pixel."""
        return self.of.dense

    @property
    def outputs(self) -> tuple[str | int, ...]:
        """The keys or paths of the network's outputs that make up this one; empty where :attr:`output` is not given."""
        if self.output is None:
            return ()
        return self.output if isinstance(self.output, tuple) else (self.output,)

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
        kind = self.of
        self._check_taken(kind)
        self._check_options(kind)
        kind.check(self)
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
        if self.shape and (not kind.keeps_shape or math.prod(self.shape) != self.size):
            raise TaskError(f"task {self.name!r}: shape {self.shape} does not fit {kind.called} of {self.size} values")
        if self.stride < 0:
            raise TaskError(f"task {self.name!r}: stride {self.stride} is negative")
        self._check_outputs(kind)
        self._check_size(self.size)

    def _check_taken(self, kind: TaskKind) -> None:
        if self.labels and "labels" not in kind.takes:
            instead = "a unit, not labels" if "unit" in kind.takes else "no labels"
            raise TaskError(f"task {self.name!r}: {kind.called} has {instead}")
        if self.unit is not None and "unit" not in kind.takes:
            raise TaskError(f"task {self.name!r}: only {those_with('unit')} has a unit, this is {self.kind}")
        if (self.scale, self.offset) != (1.0, 0.0) and "scale" not in kind.takes:
            raise TaskError(f"task {self.name!r}: only {those_with('scale')} has scale and offset, this is {self.kind}")
        for field, why in _REFUSED.items():
            if getattr(self, field) != getattr(Task, field) and field not in kind.takes:
                raise TaskError(f"task {self.name!r}: {kind.called} has no {field}; {why}")

    def _check_options(self, kind: TaskKind) -> None:
        if self.options is None and kind.options is not None:
            object.__setattr__(self, "options", read_options(kind, {}, f"task {self.name!r}"))
        if self.options is not None and (kind.options is None or not isinstance(self.options, kind.options)):
            wanted = "none" if kind.options is None else kind.options.__name__
            raise TaskError(
                f"task {self.name!r}: options are {type(self.options).__name__}; {kind.called} takes {wanted}"
            )

    def _check_outputs(self, kind: TaskKind) -> None:
        if not isinstance(self.output, tuple):
            return
        if self.columns is not None:
            raise TaskError(
                f"task {self.name!r}: columns of several outputs; give one output with columns, or several without"
            )
        most = kind.most_outputs
        if len(self.output) < 2 or (most and len(self.output) > most):
            few = "one output" if most == 1 else f"up to {most} outputs" if most else "two outputs or more in a list"
            raise TaskError(
                f"task {self.name!r}: output {list(self.output)}: {kind.called} takes {few}"
                f"{' of the network' if most else ', or one without'}"
            )
        if len(set(map(str, self.output))) != len(self.output):
            raise TaskError(f"task {self.name!r}: output {list(self.output)} names one twice")

    def _check_size(self, size: int) -> None:
        if self.applied != "none" and (reason := self.of.misfit(size, self.applied)):
            raise TaskError(f"task {self.name!r}, activation {self.activation}: {reason}")
        if size:  # otherwise it is not known yet
            self.of.check_size(self, size)

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
        kind = self.of
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "size": self.size}
        if self.labels:
            data["labels"] = list(self.labels)
        if self.output is not None:
            data["output"] = list(self.output) if isinstance(self.output, tuple) else self.output
        if self.columns is not None:
            data["columns"] = list(self.columns)
        if kind.keeps_shape:
            data["shape"] = list(self.shape)
        data |= {field: getattr(self, field) for field in _WRITTEN if field in kind.takes}
        if self.valid_range is not None:
            data["valid_range"] = list(self.valid_range)
        if self.activation is not None and kind.of_classes:
            data["activation"] = self.activation
        return data | write_options(self.options)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "task") -> Task:
        """Make a task from a mapping such as :meth:`to_dict`'s or a table of a task file.

        Args:
            data: the fields; ``name`` and ``kind`` are required.
            where: how errors call the place that the mapping comes from.

        Raises:
            TaskError: a field is missing, unknown, of the wrong type or does not fit.
        """
        kind = task_kind(data["kind"]) if isinstance(data.get("kind"), str) and data["kind"] in KINDS else None
        own = () if kind is None else option_names(kind)
        known = {field.name for field in fields(cls)} - {"options"} | set(own)
        if unknown := sorted(set(data) - known):
            others = owners(unknown[0]) if isinstance(unknown[0], str) else []
            only = f"only {' and '.join(others)} has it; " if others else ""
            raise TaskError(
                f"{where}: unknown field {shown(unknown[0])}; {only}known fields: {', '.join(sorted(known))}"
            )
        try:
            check(dict(data), TASK if kind is None else task_schema(kind))
        except DocumentError as error:
            raise TaskError(f"{where}: {error}") from error
        for field, why in _REFUSED.items():
            if field in data and kind is not None and field not in kind.takes:
                raise TaskError(f"{where}: {kind.called} has no {field}; {why}")
        ends = data.get("valid_range")
        valid_range = None if ends is None else (float(ends[0]), float(ends[1]))
        columns = None if data.get("columns") is None else tuple(data["columns"])
        output = data.get("output")
        made = {
            "labels": tuple(data.get("labels", ())),
            "columns": columns,
            "shape": tuple(data.get("shape", ())),
            "output": output if not isinstance(output, list) else tuple(output) if len(output) > 1 else output[0],
            "valid_range": valid_range,
            "options": None if kind is None else read_options(kind, data, where),
        }
        return cls(**{**{name: value for name, value in data.items() if name not in own}, **made})


_REFUSED = {field: why for field, why in SHARED.items() if why}
_WRITTEN = ("unit", "scale", "offset", "threshold", "stride", "upsample", "argmax", "valid_range")


def task_schema(kind: TaskKind) -> Schema:
    """Return the JSON Schema of a kind's tasks: in a signature, or a table of a task file."""
    return {**TASK, "properties": {**TASK["properties"], **option_schemas(kind)}}


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
