"""The activation that an output ends in: its last operators are read backwards, keeping track of the axis of the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mtl_deploy.runtime.bundle.activation import Activation

from .forms import affine, handwritten
from .places import MEANS, Place, integer_attribute, place_before, sizes_of

if TYPE_CHECKING:
    import onnx_ir as ir

Form = Activation | Literal["log_sigmoid"]

_LINEAR = frozenset(
    (*("Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"), "BatchNormalization", "LayerNormalization")
)
_SAME = frozenset(("Identity", "Cast", "CastLike", "Dropout", "Clip"))
_OF_LOG: dict[Form, Form] = {"softmax": "log_softmax", "sigmoid": "log_sigmoid"}
_OF_EXP: dict[Form, Form] = {"log_softmax": "softmax", "log_sigmoid": "sigmoid"}


@dataclass(frozen=True)
class FoundActivation:
    """What the operators before an output show.

    Attributes:
        form: the activation; ``none`` if the last operator that computes something is a layer with weights; None if the operators
            do not tell. No task can have ``log_sigmoid``.
        how: the operators, for people.
        mixed: whether the output concatenates parts with different activations.
    """

    form: Form | None
    how: str
    mixed: bool = False


def find_activation(output: ir.Value, axis: int | None = None) -> FoundActivation:
    """Find the activation that an output ends in.

    This looks through operators that move, cut, join, cast, clip, resize or average values, and knows Sigmoid, Softmax and
    LogSoftmax over the axis of the classes and the usual ways to write them by hand.

    Args:
        output: of a graph, ``(N,)``, ``(N, k)`` or ``(N, C, h, w)``.
        axis: of the classes; None: 1, or none where there is one value.
    """
    rank = None if output.shape is None else len(output.shape)
    return _look(output, Place(axis if axis is not None else None if rank in (1, 3) else 1))


def _look(value: ir.Value, place: Place) -> FoundActivation:
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
        return FoundActivation(None, "HardSigmoid, which is not a sigmoid")
    data = node.inputs[0] if node.inputs else None
    if data is not None and kind in _SAME:
        found = _look(data, place)
        return replace(found, form=None, how="Clip") if (kind, found.form) == ("Clip", "none") else found
    if data is not None and (earlier := place_before(node, value, data, place)) is not None:
        return _unless_logs(kind, _look(data, earlier))
    if kind == "Concat":
        return _joined(node, value, place)
    return _computed(node, place)


def _softmax(node: ir.Node, place: Place) -> FoundActivation:
    value = node.outputs[0]
    attribute = node.attributes.get("axis")
    axis, shape = -1 if attribute is None else attribute.as_int(), value.shape
    if shape is not None and axis < 0:
        axis += len(shape)
    if shape is None or place.axis != axis:
        return FoundActivation(None, f"{node.op_type} over another axis than the classes")
    log = node.op_type == "LogSoftmax"
    if place.span is None or place.span == (0, shape[axis]):
        return FoundActivation("log_softmax" if log else "softmax", node.op_type)
    return _taken(log, node.op_type, place.span, shape[axis])


def _taken(log: bool, name: str, span: tuple[int, int], classes: object) -> FoundActivation:
    """Return what some of the classes of a softmax are: probabilities that do not sum to 1."""
    count = span[1] - span[0]
    how = f"{name} over {classes} classes, of which {count} {'is' if count == 1 else 'are'} taken"
    if log:
        return FoundActivation("log_sigmoid" if count == 1 else "log_softmax", how)
    return FoundActivation("sigmoid", how)


def _unless_logs(kind: str, found: FoundActivation) -> FoundActivation:
    """Return what was found, except for logarithms under a mean: a mean of probabilities is one, a mean of logarithms is not."""
    if kind in MEANS and found.form in ("log_softmax", "log_sigmoid"):
        return FoundActivation(None, f"a mean of {found.form}")
    return found


def _joined(node: ir.Node, value: ir.Value, place: Place) -> FoundActivation:
    """Read the parts of a Concat, and compare them."""
    shape = value.shape
    along = integer_attribute(node, "axis", 0) % (len(shape) if shape is not None else 1)
    parts: list[tuple[FoundActivation, str]] = []
    start = 0
    low, high = place.span or (0, 1 << 60)
    for part in node.inputs:
        assert part is not None  # Concat has no optional inputs
        if along != place.axis:
            parts.append((_look(part, place), ""))
            continue
        size = sizes_of(part)[along] if part.shape is not None else ""
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


def _computed(node: ir.Node, place: Place) -> FoundActivation:
    """Read logarithms, exponentials, complements, and activations that are written by hand."""
    if (form := handwritten(node, place.axis)) is not None:
        how = f"{form} written by hand ({node.op_type})"
        if form == "sigmoid" or place.span is None:
            return FoundActivation(form, how)
        return _taken(form == "log_softmax", how, place.span, sizes_of(node.outputs[0])[place.axis or 0])
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
