"""Weights: checking them, and loading them into a network under its own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtl_deploy.runtime.errors import CheckpointError

from .names import COUNTERS, DEEPEST, EXTRA_STATE, few

State = Mapping[str, Any]


@dataclass(frozen=True)
class LoadedWeights:
    """What was loaded.

    Attributes:
        network: the network, ready to run.
        converted: what was converted, for people; empty if nothing was.
        left: names of tensors that the network has no place for.
    """

    network: torch.nn.Module
    converted: str
    left: tuple[str, ...]


def load_weights(network: torch.nn.Module, state: State, *, trust: bool = False) -> LoadedWeights:
    """Load a state dict into a network, as float32 on the CPU, in eval mode.

    Every tensor of the network must be given, under one of its names. What the network has no place for is left, unless it
    shows that another network was trained: a layer more in a sequence, or a tensor more in a layer.

    Args:
        network: any network, on any device, the meta device included.
        state: tensors and extra state under the network's names.
        trust: give the network extra state that its own code may unpickle.

    Raises:
        CheckpointError: tensors are missing, of another shape, quantized, without data, NaN or infinite; or they belong to another
            network.
    """
    own = network.state_dict()
    tensors = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
    given = _with_tied_names(state, tensors)
    left = tuple(name for name in given if name not in own)
    if all(name in given for name in tensors):
        given = {name: value for name, value in given.items() if name in own}
    for name, value in given.items():
        if name.rpartition(".")[2] == EXTRA_STATE:
            if not trust:
                _check_extra_state(name, value)
        elif name in own or value.is_floating_point():
            _check_storage(name, value, floating=name in tensors and tensors[name].is_floating_point())
    # Copies, so that the file may change while the network lives.
    weights = {name: _own_copy(value) if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    reshaped = [
        f"{name} {tuple(value.shape)} instead of {tuple(tensors[name].shape)}"
        for name, value in weights.items()
        if name in tensors and not torch.nn.parameter.is_lazy(tensors[name]) and tensors[name].shape != value.shape
    ]
    missing: Sequence[str] = [name for name in own if name not in weights]
    if not reshaped:  # the network decides: its modules may fill in or rename what old checkpoints lack
        try:
            missing, unexpected = network.load_state_dict(weights, strict=False, assign=True)
        except Exception as error:  # modules load their extra state with code of their own
            raise CheckpointError(f"the network rejects the tensors: {' '.join(str(error).split())}") from error
        left = tuple(name for name in left if name in unexpected or name not in weights)
    unlike = left if missing or reshaped else _of_another_network(network, left)
    _require_none(missing, unlike, reshaped)
    narrow = {value.dtype for name, value in given.items() if name in tensors and value.is_floating_point()}
    return LoadedWeights(ready(network), converted(narrow), left)


def converted(dtypes: Iterable[torch.dtype]) -> str:
    """Return what is converted to float32, for people; empty if nothing is."""
    others = sorted(_dtype(dtype) for dtype in set(dtypes) - {torch.float32})
    return f"converted from {', '.join(others)} to float32" if others else ""


def tied_names(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each name, the first name of the same tensor: ``state_dict`` lists a shared layer under all its names."""
    first: dict[object, str] = {}
    return {name: first.setdefault(_place(name, tensor), name) for name, tensor in tensors.items()}


def _place(name: str, tensor: object) -> object:
    if not isinstance(tensor, torch.Tensor) or torch.nn.parameter.is_lazy(tensor):
        return name
    if tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return name
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _with_tied_names(state: State, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Give a tensor under all its names in the network.

    Raises:
        CheckpointError: names of one tensor hold different values in the file.
    """
    given = dict(state)
    by_first: dict[str, str] = {}
    tied = tied_names(tensors)
    for name in (name for name in tensors if name in state):
        other = by_first.setdefault(tied[name], name)
        if other != name and not _same(state[name], state[other]):
            raise CheckpointError(
                f"{other!r} and {name!r} are one tensor in the network and two in the file; untie them in the network, or save "
                "its own state_dict"
            )
    for name in tensors:
        if name not in given and tied[name] in by_first:
            given[name] = state[by_first[tied[name]]]
    return given


def _same(one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True
    if one.is_meta or other.is_meta or one.layout != torch.strided or other.layout != torch.strided:
        return True  # refused later
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _own_copy(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype, copy=True).contiguous() if tensor.layout == torch.strided else tensor


_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.Size)


def _check_extra_state(name: str, value: object) -> None:
    """Refuse what ``set_extra_state`` may unpickle: bytes, and tensors of bytes (Transformer Engine's form)."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list, tuple, set)) and id(one) not in seen:
            seen.add(id(one))
            waiting += [*dict.keys(one), *dict.values(one)] if isinstance(one, dict) else one
        elif isinstance(one, torch.Tensor):
            if one.dtype in (torch.uint8, torch.int8):
                break
        elif not isinstance(one, (*_PLAIN, dict, list, tuple, set)):
            break
    else:
        return
    raise CheckpointError(
        f"{name!r} holds a {type(one).__name__}"
        + (f" of {_dtype(one.dtype)}" if isinstance(one, torch.Tensor) else "")
        + ", which the network's set_extra_state may unpickle, and a pickle can run anything; nothing was run. Save without extra "
        "state, or pass --trust-pickle if you trust where the file comes from"
    )


def _of_another_network(network: torch.nn.Module, left: Sequence[str]) -> list[str]:
    """Return the names that show that another network was trained; those of a criterion or an unused head do not."""
    modules = dict(network.named_modules())
    found = []
    for name in left:
        parts = name.split(".")
        depth = min(len(parts) - 1, DEEPEST)
        while depth and ".".join(parts[:depth]) not in modules:
            depth -= 1
        module, rest = modules[".".join(parts[:depth])], parts[depth:]
        if len(rest) == 1:  # a tensor more in a layer: a bias, the statistics of a BatchNorm
            leaf = depth > 0 and not module._modules and not isinstance(module, nn.Identity)
            if leaf and rest[0] not in (*COUNTERS, EXTRA_STATE):
                found.append(name)
        elif rest[0].isdigit() and isinstance(module, (nn.Sequential, nn.ModuleList)) and len(module):
            found.append(name)  # a deeper network
    return found


def ready(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network in eval mode, on the CPU and in float32, after checking that all its values are finite.

    Raises:
        CheckpointError: a parameter or buffer is quantized, has no data, or is NaN or infinite; the tensor is named.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name, tensor in tensors.items():
        _check_storage(name, tensor, floating=False)
    # A network may override these; not all return the network.
    network.to("cpu")
    network.float()
    network.eval()
    network.requires_grad_(False)
    check_finite({**dict(network.named_parameters()), **dict(network.named_buffers())})
    return network


def check_finite(tensors: State) -> None:
    """Check that no tensor holds a NaN or an infinity.

    Raises:
        CheckpointError: one does; the message names it, with their number and the position of the first.
    """
    for name, tensor in tensors.items():
        # The sum is not finite if any value is not: one pass without a copy for the common case.
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum(dtype=torch.float64)):
            continue
        bad = ~torch.isfinite(tensor)
        place = tuple(bad.nonzero()[0].tolist())
        what = "NaN" if torch.isnan(tensor[place]) else "infinite"
        raise CheckpointError(
            f"tensor {name!r} has {int(bad.sum())} of {tensor.numel()} values that are NaN or infinite (the first is "
            f"{what}, at {list(place)}); training diverged or the file is damaged: use an earlier checkpoint"
        )


def _check_storage(name: str, tensor: torch.Tensor, *, floating: bool) -> None:
    if torch.nn.parameter.is_lazy(tensor):
        raise CheckpointError(
            f"tensor {name!r} has no shape yet (a lazy module); run the network once before saving it"
        )
    if tensor.is_meta:
        raise CheckpointError(
            f"tensor {name!r} has no data (it is on the meta device); save the network with its weights"
        )
    if tensor.is_quantized or (floating and not tensor.is_floating_point()):
        raise CheckpointError(
            f"tensor {name!r} is {_dtype(tensor.dtype)}, not floating point: a quantized network; "
            "give the float32 network, quantization comes after the export"
        )
    if tensor.layout != torch.strided:
        raise CheckpointError(f"tensor {name!r} is sparse; save it with .to_dense()")


def _require_none(missing: Sequence[str], unexpected: Sequence[str], reshaped: Sequence[str]) -> None:
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    problems = [f"{len(names)} {what} ({few(names)})" for what, names in kinds if names]
    if problems:
        raise CheckpointError(
            f"the tensors do not belong to this network: {'; '.join(problems)}; save the state_dict of the network itself, "
            "or name the code that makes another network with --model package.module:factory"
        )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
