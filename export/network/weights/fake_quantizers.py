"""Weights that were trained for quantization: found by the names of their fake quantizers, and taken as they are without these.

The names are those of

- ``torch.ao.quantization``: ``X.weight_fake_quant``, ``activation_post_process_0`` (torch/ao/quantization/fx/prepare.py);
- torchao's PT2E: ``activation_post_process_0`` for weights and activations (torchao/quantization/pt2e/prepare.py);
- NVIDIA ModelOpt: ``X.input_quantizer._amax`` (modelopt/torch/quantization/nn/modules/tensor_quantizer.py), and its forerunner
  pytorch-quantization: ``X._input_quantizer._amax``;
- Brevitas: ``X.weight_quant``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mtl_deploy.runtime.errors import CheckpointError

from .names import few

_ACTIVATIONS = re.compile(
    r"activation_post_process(_\d+)?|_?(input|output|\w+_bmm)_quantizer(_\d+)?|(input|output|act)_quant"
)
_WEIGHTS = re.compile(r"weight_fake_quant|_?weight_quantizer(_\d+)?|(weight|bias)_quant")
_MOVES_SCALE = ("_pre_quant_scale", "_svdquant_lora_a", "_svdquant_lora_b")  # the weights are wrong without them
_NORM = re.compile(r"(.+)\.bn\.(weight|bias|running_mean|running_var|num_batches_tracked)")
_SIZES = (64, 224, 256, 512, 128, 32)  # pixels that the network is tried at, to see what follows what


def without_quantizers(state: Mapping[str, Any], expected: Iterable[str]) -> tuple[Mapping[str, Any], str]:
    """Leave out the tensors of fake quantizers and observers.

    Args:
        state: tensors by name.
        expected: the network's own names; a network that has such names itself keeps them.

    Returns:
        The other tensors, and what was left out, for people; empty if nothing was.

    Raises:
        CheckpointError: the weights are not the network's without their quantizers (SmoothQuant, AWQ, SVDQuant).
    """
    found = {name: part for name in state if (part := _quantizer(name))}
    if not found or any(map(_quantizer, expected)):
        return state, ""
    if scaled := [name for name in found if name.endswith(_MOVES_SCALE)]:
        raise CheckpointError(
            f"weights that were scaled for their quantizers ({few(scaled)}): without these the network computes something "
            "else; save its state_dict before quantization, INT8 comes after the export"
        )
    parents = {name[: name.index(part) + len(part)]: part for name, part in found.items()}
    weights = sum(bool(_WEIGHTS.fullmatch(part)) for part in parents.values())
    note = (
        f"the weights were trained for quantization by {_tool(found.values())}: they are taken as they are, without the fake "
        f"quantizers ({len(parents) - weights} of activations, {weights} of weights)"
    )
    return {name: value for name, value in state.items() if name not in found}, note


def _quantizer(name: str) -> str:
    """Return the part of a tensor's name that is a quantizer's; empty if there is none."""
    parts = name.split(".")[:-1]
    return next((part for part in parts if _ACTIVATIONS.fullmatch(part) or _WEIGHTS.fullmatch(part)), "")


def _tool(parts: Collection[str]) -> str:
    if any(part.endswith("_quant") and not part.endswith("fake_quant") for part in parts):
        return "Brevitas"
    if any("_quantizer" in part for part in parts):
        old = any(part.startswith("_") for part in parts)
        return "pytorch-quantization" if old else "NVIDIA ModelOpt"
    return "torch.ao (FX or eager mode)" if "weight_fake_quant" in parts else "PT2E or torch.ao's observers"


def place_norms(network: nn.Module, tensors: dict[str, Any]) -> dict[str, Any]:
    """Give ``X.bn.weight`` the name of the BatchNorm that follows convolution X in the network.

    ``torch.ao`` moves a BatchNorm into its convolution before it trains them. What follows what is seen when the network runs;
    if it does not run here, the next BatchNorm among its modules that the file lacks is taken, if it has the right size.

    Args:
        network: the network that the tensors are for.
        tensors: under the network's names, apart from these.

    Returns:
        The tensors, renamed.
    """
    own = network.state_dict()
    inside = {
        match[1]
        for name in tensors
        if name not in own and (match := _NORM.fullmatch(name)) and f"{match[1]}.weight" in own
    }
    if not inside:
        return tensors
    follows = _seen(network, inside) or _next(network, tensors, inside)
    renamed = {}
    for name, value in tensors.items():
        match = _NORM.fullmatch(name)
        moved = match is not None and match[1] in follows and name not in own
        renamed[f"{follows[match[1]]}.{match[2]}" if moved and match else name] = value
    return renamed


class _Watch:
    """Sees which BatchNorm takes what a layer returns, while a network runs."""

    def __init__(self, network: nn.Module, layers: Collection[str]) -> None:
        self.follows: dict[str, str] = {}
        self._made: dict[int, tuple[str, object]] = {}  # the outputs are kept, so that no other tensor gets their id
        self._handles = []
        for name, module in network.named_modules():
            if name in layers:
                self._handles.append(module.register_forward_hook(partial(self._layer, name)))
            elif isinstance(module, _BatchNorm):
                self._handles.append(module.register_forward_pre_hook(partial(self._norm, name)))

    def _layer(self, name: str, _: nn.Module, __: object, output: object) -> None:
        self._made[id(output)] = name, output

    def _norm(self, name: str, _: nn.Module, given: tuple[object, ...]) -> None:
        if given and id(given[0]) in self._made:
            self.follows[self._made[id(given[0])][0]] = name

    def end(self) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()


def _seen(network: nn.Module, inside: Collection[str]) -> dict[str, str]:
    """Run the network and see which BatchNorm takes what each layer returns; empty if it does not run, or none does."""
    first = next((module for module in network.modules() if isinstance(module, _ConvNd)), None)
    weight = next(network.parameters(), None)
    if first is None or weight is None:
        return {}
    network.eval()
    for size in _SIZES:
        watch = _Watch(network, inside)
        try:
            with torch.inference_mode():
                network(torch.zeros(2, first.in_channels, size, size, device=weight.device, dtype=weight.dtype))
        except Exception:  # noqa: BLE001 - the network's own code runs here; another size may suit it
            continue
        finally:
            watch.end()
        return watch.follows
    return {}


def _next(network: nn.Module, tensors: Mapping[str, Any], inside: Collection[str]) -> dict[str, str]:
    follows: dict[str, str] = {}
    modules = list(network.named_modules())
    for place, (name, _) in enumerate(modules):
        if name not in inside:
            continue
        size = tensors[f"{name}.bn.running_mean"].numel() if f"{name}.bn.running_mean" in tensors else None
        for other, module in modules[place + 1 :]:
            lacking = (
                isinstance(module, _BatchNorm) and f"{other}.weight" not in tensors and other not in follows.values()
            )
            if lacking and isinstance(module, _BatchNorm) and module.num_features == size:
                follows[name] = other
                break
    return follows


def quieten(network: nn.Module) -> tuple[nn.Module, str]:
    """Take the fake quantizers and observers out of a pickled network that was prepared for quantization.

    Returns:
        The network, and what was taken out, for people; empty if nothing was.
    """
    from torch.ao.quantization.fake_quantize import FakeQuantizeBase
    from torch.ao.quantization.observer import ObserverBase

    count = 0
    for _, parent in list(network.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (FakeQuantizeBase, ObserverBase)):
                setattr(parent, name, nn.Identity())
                count += 1
    if not count:
        return network, ""
    return network, (
        f"the network was trained for quantization: its {count} fake quantizers and observers were taken out; ranges for "
        "INT8 are found anew, from --calibration-data"
    )
