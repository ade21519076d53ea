"""The ranges that fake quantizers hold in a ``state_dict``, and what each of them sees when the network runs."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from mtl_deploy.calibration.observe.trained import TrainedRange

from .names import bare

_INPUT = re.compile(r"(.+)\._?input_quantizer\._amax")
_NUMBERED = re.compile(r"(activation_post_process_\d+)\.activation_post_process\.(min_val|max_val)")
_BACKENDS = ("x86", "qnnpack")  # torch.ao's default placements of fake quantizers: fbgemm and onednn place them as x86


class HeldRanges(Protocol):
    """Ranges of activations that a file holds."""

    def see(self, images: torch.Tensor) -> tuple[TrainedRange, ...]:
        """Return the ranges with the values that they are for on some images, ``(N, 3, H, W) float32``."""


@dataclass(frozen=True)
class QuantizerRanges:
    """Ranges of activations, and the network to run to see whose they are.

    Attributes:
        network: its modules of the names in ``ranges`` see the tensors that the ranges are for, as their input.
        ranges: lowest and highest value by module.
        mirrored: whether only magnitudes were trained.
    """

    network: nn.Module
    ranges: dict[str, tuple[float, float]]
    mirrored: bool

    def see(self, images: torch.Tensor) -> tuple[TrainedRange, ...]:
        """Run the network and return the ranges with the values that they are for.

        Args:
            images: what the network takes, ``(N, 3, H, W) float32``.
        """
        seen: list[tuple[str, torch.Tensor]] = []
        # Once per module: FX gives tensors that only change their shape one fake quantizer under several names.
        modules = {self.network.get_submodule(name): name for name in self.ranges}
        handles = [module.register_forward_pre_hook(partial(_keep, seen, name)) for module, name in modules.items()]
        try:
            with torch.inference_mode():
                self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(
            TrainedRange(name, values.float().numpy(), *self.ranges[name], self.mirrored) for name, values in seen
        )


def _keep(seen: list[tuple[str, torch.Tensor]], name: str, _: nn.Module, given: tuple[Any, ...]) -> None:
    if given and isinstance(given[0], torch.Tensor):
        seen.append((name, given[0].clone()))  # a later layer may write into it


def trained_ranges(network: nn.Module, state: Mapping[str, Any], prefix: str) -> QuantizerRanges | None:
    """Return the ranges of a network's activations that a file holds, if it is known which tensors they are for.

    That is so for ModelOpt and pytorch-quantization, which name the layer, and for ``torch.ao``'s FX mode if its default placement
    gives the file's names. PT2E's numbers depend on the quantizer that it was given, and eager mode's names on what was fused.

    Args:
        network: with the file's weights, in eval mode.
        state: tensors by name, as the file has them.
        prefix: under which names the network's stand, without wrappers.
    """
    start = f"{prefix}." if prefix else ""
    named = {bare(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    named = {name[len(start) :]: value for name, value in named.items() if name.startswith(start)}
    modules = dict(network.named_modules())
    magnitudes = {
        match[1]: float(value.abs().max())
        for name, value in named.items()
        if (match := _INPUT.fullmatch(name)) and match[1] in modules and value.numel()
    }
    if magnitudes:
        ends = {name: (-value, value) for name, value in magnitudes.items() if 0 < value < float("inf")}
        return QuantizerRanges(network, ends, mirrored=True)
    found: dict[str, dict[str, float]] = {}
    for name, value in named.items():
        if (match := _NUMBERED.fullmatch(name)) and value.numel() == 1:
            found.setdefault(match[1], {})[match[2]] = float(value)
    numbered = {name: (both["min_val"], both["max_val"]) for name, both in found.items() if len(both) == 2}
    numbered = {
        name: (low, high) for name, (low, high) in numbered.items() if -float("inf") < low <= high < float("inf")
    }
    prepared = _prepared(network, named) if numbered else None
    return None if prepared is None else QuantizerRanges(prepared, numbered, mirrored=False)


def _prepared(network: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """Prepare the network as training did, with fake quantizers that only watch; None if that gives other names."""
    try:
        from torch.ao.quantization import disable_fake_quant, disable_observer, get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
    except ImportError:  # torch will drop it
        return None
    for backend in _BACKENDS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = copy.deepcopy(network).train()
                example = (torch.zeros(1, 3, 64, 64),)  # for its number of inputs
                prepared: nn.Module = prepare_qat_fx(made, get_default_qat_qconfig_mapping(backend), example)
                if prepared.state_dict().keys() != state.keys():
                    continue
                prepared.load_state_dict(state)
        except Exception:  # noqa: BLE001 - the network's own code is traced here and can raise anything
            continue
        prepared.apply(disable_fake_quant)
        prepared.apply(disable_observer)
        return prepared.eval().requires_grad_(False)
    return None
