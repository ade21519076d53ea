"""Where the classes lie in a tensor, followed backwards through the operators that move, cut, resize or average values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
MEANS = frozenset(("ReduceMean", "GlobalAveragePool", "AveragePool"))


@dataclass(frozen=True)
class Place:
    """Where the classes lie in a tensor.

    Attributes:
        axis: of the classes; None if there is only one value, without an axis of its own.
        span: the first class and the one after the last, where not all of them are used.
    """

    axis: int | None
    span: tuple[int, int] | None = None

    def of(self, start: int, size: int) -> Place:
        """Return the place before ``size`` classes, starting at ``start``, were cut out."""
        low, high = self.span or (0, size)
        return replace(self, span=(start + low, start + high))


def place_before(node: ir.Node, value: ir.Value, data: ir.Value, place: Place) -> Place | None:
    """Return where the classes lie before a node moves, cuts, resizes or averages them; None if it does something else."""
    if data.shape is None or value.shape is None:
        return None
    old, new = sizes_of(data), sizes_of(value)
    kind, axis = node.op_type, place.axis
    if kind in _MOVES:
        return place if axis is None else _reshaped(old, new, place)
    if kind == "Transpose":
        perm = node.attributes["perm"].as_ints()
        return place if axis is None else replace(place, axis=int(perm[axis]))
    if kind == "Slice":
        return _sliced(node, old, new, place)
    if kind == "Split":
        along = integer_attribute(node, "axis", 0) % len(old)
        sizes = [sizes_of(output)[along] for output in node.outputs]
        if axis is None and along and new[along] == "1":
            place = Place(along)
        if along != place.axis:
            return place
        start = sizes[: list(node.outputs).index(value)]
        return place.of(sum(map(int, start)), int(new[along])) if all(size.isdecimal() for size in sizes) else None
    if kind == "Gather":
        return _gathered(node, old, place)
    if kind == "Resize":
        return place if axis is not None and old[axis] == new[axis] else None
    if kind in MEANS:
        return _averaged(node, old, place)
    return None


def _reshaped(old: Sequence[str], new: Sequence[str], place: Place) -> Place | None:
    axis = place.axis
    assert axis is not None
    if new[axis] == "1":
        return Place(None)
    for before, size in enumerate(old):
        if size == new[axis] and _product(old[before + 1 :]) == _product(new[axis + 1 :]):
            return replace(place, axis=before)
    return None


def _sliced(node: ir.Node, old: Sequence[str], new: Sequence[str], place: Place) -> Place | None:
    cut = [axis for axis, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    if place.axis is None:  # one value: the axis that it was cut from is the axis of the classes
        cut = [axis for axis in cut if axis and new[axis] == "1"][:1]
        place = Place(cut[0]) if cut else place
    if place.axis not in cut:
        return place
    axis = place.axis
    starts, _, axes, steps = ([*map(integers_in, node.inputs[1:]), None, None, None][part] for part in range(4))
    position = axes.index(axis) if axes and axis in axes else axes.index(axis - len(old)) if axes else axis
    if starts is None or not old[axis].isdecimal() or (steps is not None and steps[position] != 1):
        return None
    start = starts[position]
    return place.of(max(start + int(old[axis]), 0) if start < 0 else start, int(new[axis]))


def _gathered(node: ir.Node, old: Sequence[str], place: Place) -> Place | None:
    along, indices = integer_attribute(node, "axis", 0) % len(old), node.inputs[1]
    chosen = None if indices is None else integers_in(indices)
    if indices is None or chosen is None or indices.shape is None or len(indices.shape) > 1:
        return None
    axis = place.axis
    if not len(indices.shape):  # the axis is dropped
        if axis is None:
            return Place(along or None).of(chosen[0] % int(old[along]), 1) if old[along].isdecimal() else None
        return replace(place, axis=axis + (axis >= along))
    if axis != along:
        return place
    if not old[along].isdecimal() or place.span is not None:
        return None
    size = int(old[along])
    found = sorted({index % size for index in chosen})
    return place if len(found) == size else place.of(found[0], len(found))


def _averaged(node: ir.Node, old: Sequence[str], place: Place) -> Place | None:
    if node.op_type != "ReduceMean":
        return place if place.axis == 1 else None
    axes = node.attributes["axes"].as_ints() if "axes" in node.attributes else None
    given = list(axes) if axes is not None else integers_in(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None or place.axis is None:
        return None
    gone = {axis % len(old) for axis in given}
    if integer_attribute(node, "keepdims", 1):
        return None if place.axis in gone else place
    left = [axis for axis in range(len(old)) if axis not in gone]
    return replace(place, axis=left[place.axis])


def integer_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return a node's integer attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def integers_in(value: ir.Value | None) -> list[int] | None:
    """Return the values of a constant; None if it is not one."""
    if value is None or value.const_value is None:
        return None
    return [int(item) for item in value.const_value.numpy().ravel()]


def sizes_of(value: ir.Value) -> list[str]:
    """Return a value's shape, each size as text: a number, or the name of a free dimension."""
    assert value.shape is not None
    return [str(size) for size in value.shape]


def _product(sizes: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    known = 1
    for size in sizes:
        known *= int(size) if size.isdecimal() else 1
    return known, tuple(sorted(size for size in sizes if not size.isdecimal()))
