"""What a network returns, as deep as it nests: leaves by path, and what is no output."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mtl_deploy.runtime.errors import TaskError

Key = str | int
_DEPTH = 16  # of containers in containers; one can hold itself. Also the most dots in one name
_DIGITS = 10  # fewer than this many in a position


class _Place(NamedTuple):
    """Where something lies in what a network returned: names and positions from the outermost container inwards; and what it is."""

    names: tuple[str, ...]
    positions: tuple[int, ...]
    value: object

    def below(self, name: Key, position: int, value: object) -> _Place:
        return _Place((*self.names, str(name)), (*self.positions, position), value)

    @property
    def path(self) -> str:
        return ".".join(self.names)


def leaves(result: object) -> dict[str, object]:
    """Return everything in what a network returned that is no container, by path, as ``det.0``; a tensor alone is at ``""``.

    Of several things that one path of names could mean, ``{"a.b": ..., "a": {"b": ...}}``, one has that path, and the others are
    at paths of positions, ``1.0``.

    Raises:
        TaskError: two keys of a mapping look the same, as 1 and "1" do.
    """
    places = list(_walk(_Place((), (), result), _DEPTH))
    counts = Counter(place.path for place in places)
    return {place.path if counts[place.path] == 1 else _path(result, place): place.value for place in places}


def _walk(place: _Place, depth: int) -> Iterator[_Place]:
    named = children(place.value)
    if named is None or not depth:
        yield place
        return
    for position, (name, item) in enumerate(named.items()):
        yield from _walk(place.below(name, position, item), depth - 1)


def _path(result: object, place: _Place) -> str:
    """Return the path that leads to a place: of names, or of positions where names lead elsewhere."""
    for text in (place.path, ".".join(map(str, place.positions))):
        if next(_locate(_Place((), (), result), text.split("."))).positions == place.positions:
            return text
    raise TaskError(
        f"two outputs of the network are called {place.path!r}, as text; give its dictionary keys that differ, in a --model "
        "factory that wraps it"
    )


def children(value: object) -> dict[Key, Any] | None:
    """Return what a container holds, by name or position; None of a value that is no container.

    Mappings; named tuples; tuples and lists; dataclasses; what has ``keys`` and ``[]`` or ``items``, as the outputs of
    transformers, mmengine and tensordict; what has nothing but attributes, as ``SimpleNamespace``.
    """
    import torch

    if value is None or isinstance(value, (torch.Tensor, torch.Size, str, bytes, int, float, complex, type)):
        return None
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    items, keys = getattr(value, "items", None), getattr(value, "keys", None)
    if callable(items):
        return dict(items())
    if callable(keys) and hasattr(value, "__getitem__"):
        return {name: value[name] for name in keys()}
    if hasattr(value, "__dict__") and not callable(value):
        return {name: item for name, item in vars(value).items() if not name.startswith("_")} or None
    return None


def pick(result: object, path: Key) -> Any:
    """Return what is at a path: a position, a name, or several with dots between; a name that has dots itself goes first.

    Raises:
        TaskError: there is nothing; the message says what there is.
    """
    return _found(result, path).value


def locate(result: object, path: Key) -> tuple[str, Any]:
    """Return the path with each position of a mapping replaced by its name, as :func:`leaves` has it, and what is there.

    Raises:
        TaskError: there is nothing; the message says what there is.
    """
    place = _found(result, path)
    return _path(result, place) if place.names else "", place.value


def _found(result: object, path: Key) -> _Place:
    root = _Place((), (), result)
    if path == "" or (path in (0, "0") and children(result) is None):
        return root
    place = next(_locate(root, str(path).split(".")), None)
    if place is None:
        raise TaskError(f"the network has no output {path!r}; it returns {listed(result)}")
    return place


def _locate(place: _Place, parts: list[str]) -> Iterator[_Place]:
    if not parts:
        yield place
        return
    named = children(place.value)
    if named is None:
        return
    found = [place.below(name, position, item) for position, (name, item) in enumerate(named.items())]
    by_text = {each.names[-1]: each for each in found}
    for count in range(min(len(parts), _DEPTH), 0, -1):
        if (name := ".".join(parts[:count])) in by_text:
            yield from _locate(by_text[name], parts[count:])
    if parts[0].isdecimal() and len(parts[0]) < _DIGITS and int(parts[0]) < len(found):
        yield from _locate(found[int(parts[0])], parts[1:])


def usable(value: object, batch: int) -> str:
    """Say why a value can be no task's output; empty if it can: a float tensor whose first dimension is the batch."""
    import torch

    if not isinstance(value, torch.Tensor):
        held = children(value)
        if held is None:
            return f"is {_described(value)}, not a tensor"
        return (
            f'is a {type(value).__name__} of {len(held)}; name one of its entries, as in output = "0.1" or "det.boxes"'
        )
    if not value.is_floating_point():
        return f"is {str(value.dtype).removeprefix('torch.')}, not floating point; return the raw output (logits), not a class"
    if not value.ndim or value.shape[0] != batch:
        return f"has shape {tuple(value.shape)} for {batch} images; its first dimension must be the batch"
    if 0 in value.shape:
        return f"has shape {tuple(value.shape)}: it holds nothing"
    return ""


def listed(result: object, shown: int = 12) -> str:
    """Describe what a network returns, for people: paths with shapes, the first few."""
    texts = [f"{path or 'one tensor'} {_described(value)}" for path, value in leaves(result).items()]
    more = f", and {len(texts) - shown} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more


def _described(value: object) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        dtype = "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
        return f"({', '.join(['N', *map(str, value.shape[1:])])}){dtype}" if value.ndim else "()"
    return "None" if value is None else type(value).__name__
