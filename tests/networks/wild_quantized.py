"""Files of networks that were trained for quantization, each with the names that its library gives.

``torch.ao``'s are made by it. torchao, ModelOpt, pytorch-quantization and Brevitas are not installed: theirs are written with the
names of torchao/quantization/pt2e/prepare.py, modelopt/torch/quantization/nn/modules/tensor_quantizer.py,
pytorch_quantization/nn/modules/tensor_quantizer.py and brevitas/nn/mixin.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from small_networks import Shared
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

State = dict[str, Any]


class Residual(nn.Module):
    """A ResNet-10 with two heads: its BatchNorms are told from each other by what they follow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.trunk = ResNet(BasicBlock, [1, 1, 1, 1])
        self.trunk.fc = nn.Identity()
        self.age, self.race = nn.Linear(512, 1), nn.Linear(512, 4)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)

    def forward(self, x: torch.Tensor) -> object:
        features = self.trunk(x)
        return self.age(features), self.race(features)


class Backwards(nn.Module):
    """BatchNorms of one size, listed in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.after_two, self.after_one = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.age, self.race = nn.Linear(8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> object:
        x = torch.relu(self.after_one(self.one(x)))
        x = torch.relu(self.after_two(self.two(x))).mean((2, 3))
        return self.age(x), self.race(x)


def images() -> torch.Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def fx(network: nn.Module, backend: str = "x86") -> nn.Module:
    """Return a network that FX mode has prepared and a few images have trained."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared: nn.Module = prepare_qat_fx(network.train(), get_default_qat_qconfig_mapping(backend), (images(),))
        return _trained(prepared)


def eager(network: Shared) -> nn.Module:
    """Return a network that eager mode has prepared, with its first convolution and BatchNorm fused."""
    from torch.ao.quantization import fuse_modules_qat, get_default_qat_qconfig, prepare_qat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.train()
        network.qconfig = get_default_qat_qconfig("x86")
        fused = fuse_modules_qat(network, [["backbone.0", "backbone.1", "backbone.2"]])
        return _trained(prepare_qat(fused))


def _trained(prepared: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(prepared.parameters(), lr=1e-3)
    for _ in range(3):
        loss = sum(output.square().mean() for output in prepared(images()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prepared.eval()


def without_rounding(prepared: nn.Module) -> nn.Module:
    """Return what a prepared network computes where its fake quantizers are off: what an export of its weights must compute."""
    from torch.ao.quantization import disable_fake_quant, disable_observer

    plain = copy.deepcopy(prepared)
    plain.apply(disable_fake_quant)
    plain.apply(disable_observer)
    return plain.eval()


def pt2e(network: nn.Module) -> State:
    """Return what torchao's ``prepare_qat_pt2e`` saves: a program's names, and numbered fake quantizers for all tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.export(network.eval(), (images(),)).module()
    state = dict(module.state_dict())
    for number in range(6):
        part = f"activation_post_process_{number}"
        state |= {
            f"{part}.fake_quant_enabled": torch.ones(1, dtype=torch.uint8),
            f"{part}.observer_enabled": torch.ones(1, dtype=torch.uint8),
            f"{part}.scale": torch.ones(1 if number % 2 else 8),
            f"{part}.zero_point": torch.zeros(1 if number % 2 else 8, dtype=torch.int32),
            f"{part}.activation_post_process.min_val": torch.tensor(-1.0),
            f"{part}.activation_post_process.max_val": torch.tensor(1.0),
        }
    return state


def modelopt(network: nn.Module, *, mark: str = "") -> State:
    """Return what ModelOpt saves: ``_amax`` per layer, of its inputs' largest magnitude and of each channel of its weights.

    With ``mark="_"`` what pytorch-quantization saves.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    largest: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: largest.update({name: given[0].abs().max()}))
        for name, module in layers.items()
    ]
    with torch.inference_mode():
        network.eval()(images())
    for handle in handles:
        handle.remove()
    state = dict(network.state_dict())
    for name, module in layers.items():
        state[f"{name}.{mark}input_quantizer._amax"] = largest[name].clone()
        dims = tuple(range(1, module.weight.ndim))
        state[f"{name}.{mark}weight_quantizer._amax"] = module.weight.detach().abs().amax(dims, keepdim=True)
    return state


def brevitas(network: nn.Module) -> State:
    """Return what Brevitas saves: a learned scale for activations, none for weights."""
    proxy = "act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value"
    state = dict(network.state_dict())
    state |= {
        f"backbone.2.{proxy}": torch.tensor(4.0),
        "backbone.0.weight_quant.tensor_quant.zero_hw_sentinel": torch.zeros(()),
    }
    return state
