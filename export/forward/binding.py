"""Which of the network's outputs each task is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task, check_tasks
from mtl_deploy.runtime.errors import TaskError

from .outputs import Key, children, leaves, listed, locate, usable
from .selected import as_tasks_output

if TYPE_CHECKING:
    import torch

_NAMED = 6


@dataclass(frozen=True)
class Binding:
    """Tasks bound to outputs.

    Attributes:
        tasks: in the given order, each with the path of its output in ``output``, its size and, by its kind, stride or shape.
        paths: of the outputs that are read, each once, in the order of the tasks.
        shapes: of these outputs, without the batch.
        left_out: paths of what the network returns and no task reads.
        repeated: those of the paths that hold one tensor for all images, ``(1, ...)``.
    """

    tasks: tuple[Task, ...]
    paths: tuple[Key, ...]
    shapes: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]
    repeated: frozenset[Key] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """For people: what is left out; that nothing is shared."""
        notes = []
        if len(self.tasks) == 1:
            notes.append("there is one task, so nothing is shared")
        if self.left_out:
            more = f", and {len(self.left_out) - _NAMED} more" if len(self.left_out) > _NAMED else ""
            named = f"{', '.join(self.left_out[:_NAMED])}{more}"
            notes.append(f"{_count(len(self.left_out), 'output')} that no task reads left out: {named}")
        return tuple(notes)


def bind_tasks(
    tasks: Sequence[Task] | None,
    defaults: Sequence[Task] | None,
    result: object,
    batch: int,
    image: tuple[int, int] = (0, 0),
) -> Binding:
    """Find which output of the network each task is, and set the tasks' ``output``, ``size``, ``stride`` and ``shape``.

    A task's output is at the path that its ``output`` field says; otherwise at the path that is the task's name; otherwise, where
    the network returns as many float tensors as there are tasks, at the task's own place among them. A network that returns one
    tensor has it at ``0``. A kind that takes several outputs takes everything in a list. Several tasks may read one output if they
    say so. What no task reads is left out.

    Args:
        tasks: what the user declared; None if nothing.
        defaults: tasks to use if the user declared none; None if the network implies none.
        result: what the network returned for ``batch`` images.
        batch: the number of images.
        image: their height and width.

    Raises:
        TaskError: no tasks are known, an output is unknown or can be no task's, or size, stride or columns do not fit.
    """
    import torch

    chosen = tasks if tasks is not None else defaults
    every = leaves(result)
    fit = {path: value for path, value in every.items() if not usable(value, batch)}
    _require_outputs(result, fit)
    if chosen is None:
        raise TaskError(_proposal(result, fit))
    chosen = check_tasks(chosen)
    bound: list[Task] = []
    values: dict[Key, torch.Tensor] = {}
    by: dict[Key, Task] = {}
    repeated: set[Key] = set()
    for place, task in enumerate(chosen):
        own: dict[Key, torch.Tensor] = {}
        for number, (path, value) in enumerate(_found(task, place, result, list(fit), len(chosen))):
            key = _key(path, result)
            if kind_of(task).repeats(task, number) and not usable(value, 1):
                assert isinstance(value, torch.Tensor)  # usable says so
                value = value.expand(batch, *value.shape[1:])
                repeated.add(key)
            if reason := usable(value, batch):
                raise TaskError(f"task {task.name!r}: output {key!r} {reason}")
            assert isinstance(value, torch.Tensor)  # usable says so
            if (other := by.get(key)) is not None and not _share(task, other):
                raise TaskError(
                    f"tasks {other.name!r} and {task.name!r} are both bound to output {key!r}; give each its own 'output', or the "
                    f"'columns' of it that are its own (outputs: {listed(result)})"
                )
            by[key], own[key] = task, value
        values |= own
        task = kind_of(task).completed(task, list(own.values()), image)
        bound.append(_sized(task, tuple(own), as_tasks_output(task, list(own.values())), image))
    read = {str(key) for key in values}
    left_out = tuple(path for path in every if path not in read and path)
    shapes = tuple(tuple(int(size) for size in value.shape[1:]) for value in values.values())
    return Binding(tuple(bound), tuple(values), shapes, left_out, frozenset(repeated))


def _share(task: Task, other: Task) -> bool:
    """Return whether two tasks read one output on purpose."""
    said = task.output is not None and other.output is not None
    return said or (task.columns is not None and other.columns is not None)


def _found(task: Task, place: int, result: object, fit: Sequence[str], count: int) -> list[tuple[str, object]]:
    """Return the path of each output that makes up a task's, and what is there."""
    if task.output is not None:
        try:
            return [part for path in task.outputs for part in _parts(task, *locate(result, path))]
        except TaskError as error:
            raise TaskError(f"task {task.name!r}: {error}") from None
    if children(result) is None:
        if count > 1 and task.columns is None:
            raise TaskError(
                f"task {task.name!r}: the network returns {listed(result)} for {count} tasks; give each task the 'columns' of it "
                "that are its own, as in columns = [7, 9] for 7 and 8"
            )
        return [("", result)]
    try:
        return _parts(task, *locate(result, task.name))
    except TaskError:
        if len(fit) == count:
            return [locate(result, fit[place])]
        raise TaskError(
            f"{_count(count, 'task')}, and {_count(len(fit), 'output')} of the network that can be one: which is task "
            f"{task.name!r}? Give it its 'output' (the network returns {listed(result)})"
        ) from None


def _parts(task: Task, path: str, value: object) -> list[tuple[str, object]]:
    """Return everything in a container as outputs of a task whose kind takes several; what is there otherwise."""
    if task.of.most_outputs == 1 or children(value) is None:
        return [(path, value)]
    return [(f"{path}.{place}", part) for place, part in leaves(value).items()]


def _key(path: str, result: object) -> Key:
    """Return a path as it is recorded, a position as a number."""
    if not path:
        return 0
    held = children(result) or {}
    return int(path) if path.isdecimal() and int(path) in held else path


def _sized(task: Task, keys: tuple[Key, ...], value: torch.Tensor, image: tuple[int, int]) -> Task:
    shape = tuple(int(size) for size in value.shape[1:])
    found = replace(task, output=keys if len(keys) > 1 else keys[0], shape=(), size=0, stride=0)
    if task.of.keeps_shape:
        return found.with_size(int(value[0].numel()), shape=shape)
    stride = _stride(task, (shape[1], shape[2]), image) if task.of.of_maps else 0
    return found.with_size(shape[0], stride=stride)


def _stride(task: Task, shape: tuple[int, int], image: tuple[int, int]) -> int:
    """Return how many pixels of the image one pixel of an output stands for, per side."""
    (height, width), (rows, columns) = image, shape
    if height % rows or width % columns or height // rows != width // columns:
        raise TaskError(
            f"task {task.name!r}: the output is {rows}x{columns} for {height}x{width}, which is not one whole stride in both "
            "directions; choose an --image-size that all of the network's strides divide (32 suits most), resize the output "
            "to such a size in the network, or declare the task raw"
        )
    return height // rows


def refuse_entries(by_batch: Mapping[int, object]) -> None:
    """Refuse a network that returns a list with one entry per image, which has no fixed outputs.

    Args:
        by_batch: what it returned, by number of images; two or more.

    Raises:
        TaskError: it does.
    """
    lists = [value for count, value in by_batch.items() if isinstance(value, (list, tuple)) and len(value) == count]
    if len(by_batch) < 2 or len(lists) < len(by_batch) or not lists[0]:
        return
    raise TaskError(
        f"the network returns one entry per image (a {type(lists[0]).__name__}, of {listed(lists[0][0])}), as detectors with "
        "their post-processing inside do. Such outputs have no fixed shape: export the part before the post-processing, with "
        "a --model factory that returns that part"
    )


def _require_outputs(result: object, fit: Mapping[str, object]) -> None:
    if not fit:
        raise TaskError(
            f"the network returns no output that a task can read ({listed(result) or type(result).__name__}); it must "
            "return float tensors whose first dimension is the batch"
        )


def _proposal(result: object, fit: Mapping[str, object]) -> str:
    options = []
    for number, (path, value) in enumerate(fit.items(), start=1):
        name = path if path.isidentifier() else f"task{number}"
        where = "" if path == name or "." not in path else f";output={path}"
        options.append(f"--task '{name}={_guess(value)}{where}'" if where else f"--task {name}={_guess(value)}")
    return (
        f"the network returns {listed(result)}, and no tasks are declared; name those that you want with --tasks FILE, or for "
        f"example {' '.join(options[:_NAMED])} (an output of size 1 can also be binary; several yes-or-no attributes in one "
        "output are multilabel; raw delivers any tensor as it is)"
    )


def _guess(value: object) -> str:
    import torch

    assert isinstance(value, torch.Tensor)  # it is usable
    size = int(value.shape[1]) if value.ndim > 1 else 1
    if value.ndim == 4:
        return "depth" if size == 1 else "normals" if size == 3 else "segmentation"
    if value.ndim > 2:
        return "raw"
    return "regression" if size == 1 else "multiclass"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
