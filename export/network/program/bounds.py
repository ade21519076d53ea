"""Sizes and values that PyTorch's kernels trust and a program may state wrongly: checked each time its network runs.

Most operators check their arguments. These do not, on CPUs (PyTorch 2.14), and read memory beyond a tensor: the fused
attention takes the number of keys from the values, the batch norms of the core operator set assume one weight per channel,
and torchvision's deformable convolution turns an offset that is NaN into an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mtl_deploy.runtime.errors import CheckpointError


def check_when_run(network: torch.nn.Module) -> None:
    """Make a program's network check what its kernels do not, each time they are called.

    Args:
        network: as ``torch.export.ExportedProgram.module`` returns it. Its nodes are changed in place; when it runs, a node that
            would read beyond a tensor raises CheckpointError.
    """
    for module in network.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        found = False
        for node in module.graph.nodes:
            if not isinstance(node.target, torch._ops.OpOverload):
                continue
            if (check := _CHECKS.get(node.target._schema.name)) is not None:
                node.target, found = _checked(node.target, check), True
        if found:
            module.recompile()


def _checked(operator: Any, check: Callable[[Mapping[str, Any]], bool]) -> Callable[..., Any]:
    names = [argument.name for argument in operator._schema.arguments]

    def checked(*positional: Any, **named: Any) -> Any:
        if not check({**dict(zip(names, positional, strict=False)), **named}):
            raise CheckpointError(
                f"the program calls {operator} with sizes or values that do not fit together; export the network again"
            )
        return operator(*positional, **named)

    return checked


def _attention(given: Mapping[str, Any]) -> bool:
    key, value = given["key"], given["value"]
    return bool(key.dim() >= 2 and key.shape[:-1] == value.shape[:-1])


def _batch_norm(given: Mapping[str, Any]) -> bool:
    tensor = given["input"]
    held = (given.get(name) for name in ("weight", "bias", "running_mean", "running_var"))
    return tensor.dim() >= 2 and all(one is None or one.shape == (tensor.shape[1],) for one in held)


def _deformable(given: Mapping[str, Any]) -> bool:
    return not bool(given["offset"].isnan().any())


_CHECKS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::native_batch_norm": _batch_norm,
    "aten::_native_batch_norm_legit": _batch_norm,
    "aten::_native_batch_norm_legit_functional": _batch_norm,
    "aten::_native_batch_norm_legit_no_training": _batch_norm,
    "torchvision::deform_conv2d": _deformable,
}
