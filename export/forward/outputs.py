"""What a network returns, as deep as it nests: leaves by path, and what is no output."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.errors import TaskError

if TYPE_CHECKING:
    pass

Key = str | int
_DEPTH = 16  # of containers in containers; one can hold itself


def leaves(result: object) -> dict[str, object]:
    """Return everything in what a network returned that is no container, by path, as ``det.0``; a tensor alone is at ``""``."""
    return dict(_walk(result, (), _DEPTH))


def _walk(value: object, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, object]]:
    named = children(value)
    if named is None or not depth:
        yield ".".join(path), value
        return
    for name, item in named.items():
        yield from _walk(item, (*path, str(name)), depth - 1)


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
    return locate(result, path)[1]


def locate(result: object, path: Key) -> tuple[str, Any]:
    """Return the path with each position of a mapping replaced by its name, as :func:`leaves` writes it, and what is there.

    Raises:
        TaskError: there is nothing; the message says what there is.
    """
    if path == "" or (path in (0, "0") and children(result) is None):
        return "", result
    found = list(_locate(result, str(path).split("."), ()))
    if not found:
        raise TaskError(f"the network has no output {path!r}; it returns {listed(result)}")
    return found[0]


def _locate(value: object, parts: list[str], before: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    if not parts:
        yield ".".join(before), value
        return
    named = children(value)
    if named is None:
        return
    by_text = {str(name): item for name, item in named.items()}
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in by_text:
            yield from _locate(by_text[name], parts[count:], (*before, name))
    if parts[0].isdecimal() and int(parts[0]) < len(named):
        name, item = list(by_text.items())[int(parts[0])]
        yield from _locate(item, parts[1:], (*before, name))


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
