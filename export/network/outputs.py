"""What a network returns, flattened: every output under its own key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.errors import TaskError

if TYPE_CHECKING:
    import torch

Key = str | int


def flatten_outputs(result: object, *, batch: int | None = None) -> dict[Key, torch.Tensor]:
    """Return a network's outputs by key, each as ``(N, k)`` or, with one value per pixel, ``(N, C, h, w)`` float.

    Args:
        result: what the network returned: a tuple or list (keys 0, 1, ...), a dict, a named tuple or a dataclass (keys
            are the names), of tensors ``(N, k)``, ``(N,)``, ``(N, C, h, w)`` or ``(N, h, w)``; a tensor without channels
            gets one, as ``(N, 1)`` or ``(N, 1, h, w)``. None values, such as an auxiliary output that only
            training uses, are left out.
        batch: N, if it is known; every output is then checked against it.

    Raises:
        TaskError: another structure, an output that is not a float tensor of such a shape, or fewer than two outputs.
    """
    import torch

    if isinstance(result, torch.Tensor):
        raise TaskError(
            f"the network returns one tensor of shape {tuple(result.shape)}, so it is a single-task network; "
            "a multi-task network returns a tuple, list, dict or named tuple with one output per task"
        )
    outputs = {key: _checked(key, value, batch) for key, value in _items(result) if value is not None}
    if len(outputs) < 2:
        found = f"one output ({_name(next(iter(outputs)))})" if outputs else "no output"
        raise TaskError(
            f"the network returns {found}, so it is not a multi-task network; two or more are needed, one per task"
        )
    if len(sizes := {len(value) for value in outputs.values()}) > 1:
        raise TaskError(
            f"the network's outputs differ in their first dimension ({sorted(sizes)}); it must be the batch"
        )
    return outputs


def _items(result: object) -> Iterator[tuple[Key, Any]]:
    if isinstance(result, Mapping):
        yield from result.items()
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        yield from zip(result._fields, result, strict=True)
    elif isinstance(result, (tuple, list)):
        yield from enumerate(result)
    elif dataclasses.is_dataclass(result):
        yield from ((field.name, getattr(result, field.name)) for field in dataclasses.fields(result))
    else:
        raise TaskError(
            f"the network returns {_called(result)}; it must return a tuple, list, dict or named tuple of tensors"
        )


def _checked(key: Key, value: object, batch: int | None) -> torch.Tensor:
    import torch

    if not isinstance(key, (str, int)):
        raise TaskError(f"the network's output has the key {key!r}; keys must be names or positions")
    if not isinstance(value, torch.Tensor):
        raise TaskError(
            f"output {_name(key)} is {_called(value)}, not a tensor; nested outputs are not supported: "
            "return a flat tuple or dict with one tensor per task"
        )
    shape = tuple(value.shape)
    if not value.is_floating_point():
        raise TaskError(
            f"output {_name(key)} is {str(value.dtype).removeprefix('torch.')}, not floating point; return the head's "
            "raw output (logits), not a class"
        )
    if len(shape) not in (1, 2, 3, 4) or 0 in shape:
        raise TaskError(
            f"output {_name(key)} has shape {shape}; supported are one row per image, (N, k) or (N,), and one map per image, "
            "(N, C, h, w) or (N, h, w)"
        )
    if batch is not None and shape[0] != batch:
        raise TaskError(
            f"output {_name(key)} has shape {shape} for {batch} images; its first dimension must be the batch"
        )
    return value if len(shape) in (2, 4) else value.unsqueeze(1)


def _name(key: Key) -> str:
    return repr(key) if isinstance(key, str) else str(key)


def _called(value: object) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
