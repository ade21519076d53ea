"""Which activation an output of a graph ends in: its last operators, read backwards, with the axis of the classes kept in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mtl_deploy.runtime.bundle.activation import Activation

from .forms import affine, handwritten

if TYPE_CHECKING:
    import onnx_ir as ir

Form = Activation | Literal["log_sigmoid"]

_LINEAR = frozenset(
    (*("Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"), "BatchNormalization", "LayerNormalization")
)
_SAME = frozenset(("Identity", "Cast", "CastLike", "Dropout", "Clip"))
_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
_MEANS = frozenset(("ReduceMean", "GlobalAveragePool", "AveragePool"))
_OF_LOG: dict[Form, Form] = {"softmax": "log_softmax", "sigmoid": "log_sigmoid"}
_OF_EXP: dict[Form, Form] = {"log_softmax": "softmax", "log_sigmoid": "sigmoid"}


@dataclass(frozen=True)
class FoundActivation:
    """What the operators before an output say.

    Attributes:
        form: the activation; ``none`` where the last operator with values of its own is a layer with weights; None where the
            operators do not tell. ``log_sigmoid`` no task can have.
        how: for people, the operators.
        mixed: whether the output puts parts with different activations side by side.
    """

    form: Form | None
    how: str
    mixed: bool = False


@dataclass(frozen=True)
class _Place:
    """Where the classes lie in a tensor.

    Attributes:
        axis: of the classes; None where they are one value and have no axis of their own.
        span: first class and the one behind the last, where not all are read.
    """

    axis: int | None
    span: tuple[int, int] | None = None

    def of(self, start: int, size: int) -> _Place:
        """Return the place after ``size`` classes from ``start`` on were cut out."""
        low, high = self.span or (0, size)
        return replace(self, span=(start + low, start + high))


def find_activation(output: ir.Value) -> FoundActivation:
    """Read an output's last operators.

    Looks through what moves, cuts, joins, casts, clips, resizes or averages values, and knows Sigmoid, Softmax and LogSoftmax over
    the axis of the classes and how they are written by hand.

    Args:
        output: a graph's, ``(N,)``, ``(N, k)`` or ``(N, C, h, w)``; the classes lie along axis 1.
    """
    rank = None if output.shape is None else len(output.shape)
    return _look(output, _Place(None if rank in (1, 3) else 1))


def _look(value: ir.Value, place: _Place) -> FoundActivation:
    node = value.producer()
    if node is None:
        return FoundActivation(None, "an input or constant of the graph")
    kind = node.op_type
    if kind in _LINEAR and (kind != "MatMul" or any(part is not None and _constant(part) for part in node.inputs)):
        return FoundActivation("none", f"{kind}, a layer with weights")
    if kind == "Sigmoid":
        return FoundActivation("sigmoid", "Sigmoid")
    if kind in ("Softmax", "LogSoftmax"):
        return _softmax(node, place)
    if kind == "HardSigmoid":
        return FoundActivation(None, "HardSigmoid, which is another function than a sigmoid")
    data = node.inputs[0] if node.inputs else None
    if data is not None and kind in _SAME:
        found = _look(data, place)
        return replace(found, form=None, how="Clip") if (kind, found.form) == ("Clip", "none") else found
    if data is not None and (before := _before(node, value, data, place)) is not None:
        return _unless_logs(kind, _look(data, before))
    if kind == "Concat":
        return _joined(node, value, place)
    return _computed(node, place)


def _softmax(node: ir.Node, place: _Place) -> FoundActivation:
    value = node.outputs[0]
    attribute = node.attributes.get("axis")
    axis, shape = -1 if attribute is None else attribute.as_int(), value.shape
    if shape is not None and axis < 0:
        axis += len(shape)
    if shape is None or place.axis != axis:
        return FoundActivation(None, f"{node.op_type} over another axis than that of the classes")
    log = node.op_type == "LogSoftmax"
    if place.span is None or place.span == (0, shape[axis]):
        return FoundActivation("log_softmax" if log else "softmax", node.op_type)
    return _taken(log, node.op_type, place.span, shape[axis])


def _taken(log: bool, name: str, span: tuple[int, int], classes: object) -> FoundActivation:
    """Return what some classes of a softmax are: probabilities by themselves, which do not sum to 1."""
    count = span[1] - span[0]
    how = f"{name} over {classes} classes, of which {count} {'is' if count == 1 else 'are'} taken"
    if log:
        return FoundActivation("log_sigmoid" if count == 1 else "log_softmax", how)
    return FoundActivation("sigmoid", how)


def _unless_logs(kind: str, found: FoundActivation) -> FoundActivation:
    """A mean of probabilities is one; a mean of their logarithms is none."""
    if kind in _MEANS and found.form in ("log_softmax", "log_sigmoid"):
        return FoundActivation(None, f"a mean of {found.form}")
    return found


def _before(node: ir.Node, value: ir.Value, data: ir.Value, place: _Place) -> _Place | None:
    """Return where the classes lie in what a node moves, cuts, resizes or averages; None where it does something else."""
    if data.shape is None or value.shape is None:
        return None
    old, new = _sizes(data), _sizes(value)
    kind, axis = node.op_type, place.axis
    if kind in _MOVES:
        return place if axis is None else _reshaped(old, new, place)
    if kind == "Transpose":
        perm = node.attributes["perm"].as_ints()
        return place if axis is None else replace(place, axis=int(perm[axis]))
    if kind == "Slice":
        return _sliced(node, old, new, place)
    if kind == "Split":
        along = _attribute(node, "axis", 0) % len(old)
        sizes = [_sizes(output)[along] for output in node.outputs]
        if axis is None and along and new[along] == "1":
            place = _Place(along)
        if along != place.axis:
            return place
        start = sizes[: list(node.outputs).index(value)]
        return place.of(sum(map(int, start)), int(new[along])) if all(size.isdecimal() for size in sizes) else None
    if kind == "Gather":
        return _gathered(node, old, place)
    if kind == "Resize":
        return place if axis is not None and old[axis] == new[axis] else None
    if kind in _MEANS:
        return _averaged(node, old, place)
    return None


def _reshaped(old: Sequence[str], new: Sequence[str], place: _Place) -> _Place | None:
    axis = place.axis
    assert axis is not None
    if new[axis] == "1":
        return _Place(None)
    for before, size in enumerate(old):
        if size == new[axis] and _product(old[before + 1 :]) == _product(new[axis + 1 :]):
            return replace(place, axis=before)
    return None


def _sliced(node: ir.Node, old: Sequence[str], new: Sequence[str], place: _Place) -> _Place | None:
    cut = [axis for axis, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    if place.axis is None:  # one value: what it was cut from is the axis of the classes
        cut = [axis for axis in cut if axis and new[axis] == "1"][:1]
        place = _Place(cut[0]) if cut else place
    if place.axis not in cut:
        return place
    axis = place.axis
    starts, _, axes, steps = ([*map(_integers, node.inputs[1:]), None, None, None][part] for part in range(4))
    position = axes.index(axis) if axes and axis in axes else axes.index(axis - len(old)) if axes else axis
    if starts is None or not old[axis].isdecimal() or (steps is not None and steps[position] != 1):
        return None
    start = starts[position]
    return place.of(max(start + int(old[axis]), 0) if start < 0 else start, int(new[axis]))


def _gathered(node: ir.Node, old: Sequence[str], place: _Place) -> _Place | None:
    along, indices = _attribute(node, "axis", 0) % len(old), node.inputs[1]
    chosen = None if indices is None else _integers(indices)
    if indices is None or chosen is None or indices.shape is None or len(indices.shape) > 1:
        return None
    axis = place.axis
    if not len(indices.shape):  # the axis goes
        if axis is None:
            return _Place(along or None).of(chosen[0] % int(old[along]), 1) if old[along].isdecimal() else None
        return replace(place, axis=axis + (axis >= along))
    if axis != along:
        return place
    if not old[along].isdecimal() or place.span is not None:
        return None
    size = int(old[along])
    found = sorted({index % size for index in chosen})
    return place if len(found) == size else place.of(found[0], len(found))


def _averaged(node: ir.Node, old: Sequence[str], place: _Place) -> _Place | None:
    if node.op_type != "ReduceMean":
        return place if place.axis == 1 else None
    axes = node.attributes["axes"].as_ints() if "axes" in node.attributes else None
    given = list(axes) if axes is not None else _integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None or place.axis is None:
        return None
    gone = {axis % len(old) for axis in given}
    if _attribute(node, "keepdims", 1):
        return None if place.axis in gone else place
    left = [axis for axis in range(len(old)) if axis not in gone]
    return replace(place, axis=left[place.axis])


def _joined(node: ir.Node, value: ir.Value, place: _Place) -> FoundActivation:
    """Compare what is put side by side."""
    shape = value.shape
    along = _attribute(node, "axis", 0) % (len(shape) if shape is not None else 1)
    parts: list[tuple[FoundActivation, str]] = []
    start = 0
    low, high = place.span or (0, 1 << 60)
    for part in node.inputs:
        assert part is not None  # Concat has no optional inputs
        if along != place.axis:
            parts.append((_look(part, place), ""))
            continue
        size = _sizes(part)[along] if part.shape is not None else ""
        if not size.isdecimal():
            return FoundActivation(None, "a Concat of unknown sizes")
        stop = start + int(size)
        if start < high and low < stop:
            span = (max(low - start, 0), min(high, stop) - start)
            whole = span == (0, int(size))
            found = _look(part, replace(place, span=None if whole else span))
            parts.append((found, f"values {max(start, low) - low} to {min(stop, high) - low - 1}: "))
        start = stop
    founds = [found for found, _ in parts]
    forms = {found.form for found in founds}
    several = along == place.axis and len(parts) > 1 and not forms.isdisjoint(("softmax", "log_softmax"))
    if len(forms) == 1 and not several:
        return founds[0]
    listed = "; ".join(f"{where}{found.form or found.how}" for found, where in parts)
    return FoundActivation(None, listed, mixed=True)


def _computed(node: ir.Node, place: _Place) -> FoundActivation:
    """Read logarithms, exponentials, complements, and what is written by hand."""
    if (form := handwritten(node, place.axis)) is not None:
        how = f"{form} written by hand ({node.op_type})"
        if form == "sigmoid" or place.span is None:
            return FoundActivation(form, how)
        return _taken(form == "log_softmax", how, place.span, _sizes(node.outputs[0])[place.axis or 0])
    data = node.inputs[0] if node.inputs else None
    if data is not None and node.op_type in ("Log", "Exp"):
        inner = data.producer()
        if node.op_type == "Log" and inner is not None and (small := affine(inner)) is not None and small[1] == 1.0:
            data = small[0] if abs(small[2]) < 1e-3 else data  # log(p + 1e-8)
        found = _look(data, place)
        other = (_OF_LOG if node.op_type == "Log" else _OF_EXP).get(found.form or "none")
        return FoundActivation(other, f"{node.op_type} of {found.how}")
    if data is not None and node.op_type == "Neg" and (source := data.producer()) and source.op_type == "Softplus":
        return FoundActivation("log_sigmoid", "Neg of Softplus")
    if (line := affine(node)) is not None:
        found = _look(line[0], place)
        if found.form == "none" or (found.form == "sigmoid" and line[1:] == (-1.0, 1.0)):  # 1 - p
            return found
    if node.op_type in ("Add", "Sub") and any(_is_linear(part) for part in node.inputs):
        return FoundActivation("none", f"{node.op_type} of layers with weights")
    return FoundActivation(None, node.op_type)


def _is_linear(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and node.op_type in _LINEAR


def _constant(value: ir.Value) -> bool:
    return value.const_value is not None


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _integers(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None:
        return None
    return [int(item) for item in value.const_value.numpy().ravel()]


def _sizes(value: ir.Value) -> list[str]:
    assert value.shape is not None
    return [str(size) for size in value.shape]


def _product(sizes: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    known = 1
    for size in sizes:
        known *= int(size) if size.isdecimal() else 1
    return known, tuple(sorted(size for size in sizes if not size.isdecimal()))
