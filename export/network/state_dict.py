"""Weights: finding them in a checkpoint, checking them, and loading them into a network under its own names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from mtl_deploy.runtime.errors import CheckpointError

State = Mapping[str, torch.Tensor]

# Where training loops keep the weights; the first that is present wins. An average of weights (EMA) comes last.
_NAMES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "model_state",
    "net_state_dict",
    "weights",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
    "params_ema",
)
_WRAPPERS = {"module", "_orig_mod"}  # DataParallel and AveragedModel; torch.compile
_AVERAGED = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts its updates in a buffer of this name
_SHOWN = 4
_DEPTH = 4  # of dicts in dicts; a pickle can hold a dict that holds itself


def find(checkpoint: object) -> tuple[State | torch.nn.Module, str]:
    """Find the network in what ``torch.load`` returned: a state dict (name to tensor), or an ``nn.Module``.

    Returns:
        The state dict (without entries that are not tensors) or the module, and where it was, for people; empty for the
        top level.

    Raises:
        CheckpointError: there is none, or there are several and no way to choose.
    """
    path: list[str] = []
    unused: list[str] = []
    for _ in range(_DEPTH):
        if isinstance(checkpoint, torch.nn.Module):
            return checkpoint, _place(path, unused)
        if not isinstance(checkpoint, Mapping):
            kind = type(checkpoint).__name__
            raise CheckpointError(
                f"holds a {kind}, not a state_dict; save torch.save(network.state_dict(), 'model.pt')"
            )
        holders = [name for name in _NAMES if isinstance(checkpoint.get(name), (Mapping, torch.nn.Module))]
        if not holders:
            if state := {str(name): value for name, value in checkpoint.items() if isinstance(value, torch.Tensor)}:
                return state, _place(path, unused)
            holders = [_only_state_dict(checkpoint)]
        path.insert(0, holders[0])
        unused += holders[1:]
        checkpoint = checkpoint[holders[0]]
    raise CheckpointError(
        f"is nested more than {_DEPTH} deep ({' in '.join(map(repr, path))}); save only the state_dict"
    )


def _place(path: Sequence[str], unused: Sequence[str]) -> str:
    left = f" (not used: {', '.join(map(repr, unused))})" if unused else ""
    return " in ".join(map(repr, path)) + left


def _only_state_dict(checkpoint: Mapping[Any, object]) -> str:
    candidates = [name for name, value in checkpoint.items() if _holds_weights(name, value)]
    if len(candidates) == 1:
        return str(candidates[0])
    if candidates:
        raise CheckpointError(
            f"holds several state_dicts ({_few(map(repr, candidates))}) and none is called 'state_dict' or 'model'; "
            "save only the whole network's state_dict"
        )
    keys = _few(map(repr, checkpoint)) or "an empty dict"
    raise CheckpointError(f"holds no state_dict, only {keys}; save torch.save(network.state_dict(), 'model.pt')")


def _holds_weights(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and "optim" not in name.lower()
        and isinstance(value, Mapping)
        and any(isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in value.items())
    )


def align(state: State, expected: Iterable[str]) -> tuple[dict[str, torch.Tensor], str]:
    """Rename tensors to the names that a network expects, by removing what wrappers add to the names.

    ``module.`` and ``_orig_mod.`` are removed wherever they stand and however often; so is a first part that all
    tensors share and the network does not have (``model.`` of a LightningModule).

    Args:
        state: tensors by name.
        expected: the network's own names, or only the first parts of them.

    Returns:
        The tensors, and what was removed, such as ``module.``; empty if the names were right.

    Raises:
        CheckpointError: two tensors would get the same name.
    """
    expected = set(expected)
    if state.keys() <= expected:
        return dict(state), ""
    own_names = {_bare(name): name for name in expected}
    roots = {name.partition(".")[0] for name in own_names}
    removed = {part for name in state for part in name.split(".") if part in _WRAPPERS}
    if removed:
        state = {name: tensor for name, tensor in state.items() if name != _AVERAGED}
    bare = {name: _bare(name) for name in state}
    while prefix := _shared_prefix(bare.values(), roots):
        removed.add(prefix)
        bare = {name: value.partition(".")[2] for name, value in bare.items()}
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        target = own_names.get(bare[name], bare[name])
        if target in renamed:
            raise CheckpointError(
                f"two tensors are called {target!r} once prefixes are removed; save the state_dict of the unwrapped "
                "network"
            )
        renamed[target] = tensor
    return renamed, ", ".join(f"{part}." for part in sorted(removed))


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _shared_prefix(names: Collection[str], roots: Collection[str]) -> str:
    first = {name.partition(".")[0] for name in names}
    return "" if len(first) > 1 or first & {*roots, *names} else first.pop()


def load_weights(network: torch.nn.Module, state: State) -> tuple[torch.nn.Module, str]:
    """Load a state dict into a network, strictly, as float32 on the CPU, in eval mode.

    Args:
        network: any network, on any device, the meta device included.
        state: tensors under the network's names.

    Returns:
        The network, and what was converted, for people; empty if nothing was.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape, quantized, without data, NaN or infinite.
    """
    own = network.state_dict()
    for name, tensor in state.items():
        _check_storage(name, tensor, floating=name in own and own[name].is_floating_point())
    # Copies, so that the file may change while the network lives.
    weights = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in state.items()
    }
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and not torch.nn.parameter.is_lazy(own[name]) and own[name].shape != tensor.shape
    ]
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if not reshaped:  # the network decides: its modules may fill in or rename what old checkpoints lack
        try:
            missing, unexpected = network.load_state_dict(weights, strict=False, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"the network rejects the tensors: {' '.join(str(error).split())}") from error
    _require_none(missing, unexpected, reshaped)
    narrow = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} - {torch.float32}
    converted = f"converted from {', '.join(sorted(map(_dtype, narrow)))} to float32" if narrow else ""
    return ready(network), converted


def ready(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network in eval mode, on the CPU and in float32, after checking that all its values are finite.

    Raises:
        CheckpointError: a parameter or buffer is quantized, has no data, or is NaN or infinite; the tensor is named.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name, tensor in tensors.items():
        _check_storage(name, tensor, floating=False)
    network = network.to("cpu").float().eval()
    check_finite({**dict(network.named_parameters()), **dict(network.named_buffers())})
    return network.requires_grad_(False)


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
    problems = [f"{len(names)} {what} ({_few(names)})" for what, names in kinds if names]
    if problems:
        raise CheckpointError(
            f"the tensors do not belong to this network: {'; '.join(problems)}; save the state_dict of the network itself, "
            "or name the code that makes another network with --model package.module:factory"
        )


def _few(names: Iterable[str]) -> str:
    listed: Sequence[str] = list(names)
    more = f", and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
