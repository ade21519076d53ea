"""Wrappers around a pickled network, which training needs and an export does not."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def unwrapped(network: nn.Module) -> nn.Module:
    """Take a network, and every network in it, out of ``torch.compile``, data-parallel wrappers and averages of weights.

    Also out of what only holds a network as ``module`` and has no ``forward`` of its own, as timm's ``ModelEma``.
    """
    network = _inner(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (inner := _inner(child)) is not child:
                setattr(module, name, inner)
    return network


def _inner(network: nn.Module) -> nn.Module:
    while True:
        if "_orig_mod" in network._modules:
            network = network.get_submodule("_orig_mod")
        elif isinstance(network, (DataParallel, DistributedDataParallel, AveragedModel)) or _only_holds(network):
            network = network.get_submodule("module")
        else:
            return network


def _only_holds(network: nn.Module) -> bool:
    return list(network._modules) == ["module"] and type(network).forward is nn.Module.forward
