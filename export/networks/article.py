"""The article's network: a torchvision ResNet without its classifier, and one head per task, kept as parts of the ResNet.

A ``state_dict`` holds the backbone as ``net.conv1.weight`` ... ``net.layer4.2.bn3.running_var`` and each head as
``net.fc{i}.linear``, a ReLU ``net.fc{i}.relu1`` and ``net.fc{i}.final``, for i = 1, 2, ...; ``net.fc`` is an identity.
Everything that the constructor needs can be read from the names and shapes of the tensors.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ROOT = "net"  # the one attribute that holds the ResNet: every tensor's name starts with it

TASKS = (
    Task("age", "regression", unit="years"),
    Task("gender", "binary", labels=("male", "female")),
    Task("race", "multiclass", labels=("White", "Black", "Asian", "Indian", "Other")),
)
TASK_SIZES = (1, 1, 5)

Shapes = Mapping[str, Sequence[int]]

_HEAD = re.compile(r"net\.fc(\d+)\.(.+)")
_BLOCK = re.compile(r"net\.layer([1-4])\.(\d+)\.")
_HEAD_TENSORS = ("linear.weight", "linear.bias", "final.weight", "final.bias")
_USE_MODEL = "name the code that makes the network with --model package.module:factory"


@dataclass(frozen=True)
class Head:
    """One head: ``linear`` (features to hidden), ReLU, ``final`` (hidden to size)."""

    hidden: int
    size: int


@dataclass(frozen=True)
class Layout:
    """What the constructor needs to know.

    Attributes:
        bottleneck: blocks of three convolutions (ResNet-50 and deeper), or of two.
        blocks: number of blocks in each of the four stages.
        groups: groups of a bottleneck's 3x3 convolution (ResNeXt), otherwise 1.
        width_per_group: channels per group in the first stage (64; other values make a ResNeXt or a Wide ResNet).
        heads: in the order fc1, fc2, ...
    """

    bottleneck: bool
    blocks: tuple[int, int, int, int]
    groups: int
    width_per_group: int
    heads: tuple[Head, ...]

    @property
    def backbone(self) -> str:
        """The backbone's usual name, such as ``ResNet-50``, ``ResNeXt-101 32x8d`` or ``Wide ResNet-50-2``."""
        depth = 2 + sum(self.blocks) * (3 if self.bottleneck else 2)
        if self.groups > 1:
            return f"ResNeXt-{depth} {self.groups}x{self.width_per_group}d"
        if self.width_per_group != 64:
            return f"Wide ResNet-{depth}-{self.width_per_group / 64:g}"
        return f"ResNet-{depth}"

    @property
    def description(self) -> str:
        """One line for people."""
        sizes = ", ".join(str(head.size) for head in self.heads)
        return f"{self.backbone} with {len(self.heads)} heads of sizes {sizes}"

    @property
    def default_tasks(self) -> tuple[Task, ...] | None:
        """The article's tasks if the heads have its sizes (1, 1, 5), otherwise None."""
        return TASKS if tuple(head.size for head in self.heads) == TASK_SIZES else None


def recognises(names: Iterable[str]) -> bool:
    """Return whether the names of tensors have the article's layout: a ResNet under ``net.`` with numbered heads."""
    names = list(names)
    return any(map(_BLOCK.match, names)) and any(map(_HEAD.fullmatch, names))


def read_layout(shapes: Shapes) -> Layout:
    """Read the layout from the shapes of the tensors, by name.

    Only what distinguishes layouts is read; loading the weights strictly checks everything else.

    Raises:
        CheckpointError: the blocks or heads are not the article's, or there are fewer than two heads.
    """
    heads = _read_heads(shapes)
    matches = [match for match in map(_BLOCK.match, shapes) if match]
    first, second, third, fourth = (len({match[2] for match in matches if match[1] == stage}) for stage in "1234")
    bottleneck = any(match.string.endswith(".conv3.weight") for match in matches)
    groups, width_per_group = _read_widths(shapes) if bottleneck else (1, 64)
    return Layout(bottleneck, (first, second, third, fourth), groups, width_per_group, heads)


def _read_widths(shapes: Shapes) -> tuple[int, int]:
    """Read groups and width per group: torchvision's first stage has a 3x3 weight (groups * width, width, 3, 3)."""
    name = "net.layer1.0.conv2.weight"
    if name not in shapes:
        raise CheckpointError(f"tensor {name!r} is missing; save the whole network's state_dict")
    shape = tuple(shapes[name])
    if len(shape) != 4 or not shape[1] or shape[0] % shape[1]:
        raise CheckpointError(f"tensor {name!r} of shape {shape} is not one of torchvision's ResNets; {_USE_MODEL}")
    return shape[0] // shape[1], shape[1]


def _read_heads(shapes: Shapes) -> tuple[Head, ...]:
    tensors: dict[int, set[str]] = {}
    for match in filter(None, map(_HEAD.fullmatch, shapes)):
        tensors.setdefault(int(match[1]), set()).add(match[2])
    numbers = sorted(tensors)
    for number in numbers:
        if tensors[number] != set(_HEAD_TENSORS):
            raise CheckpointError(
                f"head 'net.fc{number}' has the tensors {', '.join(sorted(tensors[number]))} instead of "
                f"{', '.join(_HEAD_TENSORS)}; if the head is not linear, ReLU, final: {_USE_MODEL}"
            )
    if numbers != list(range(1, len(numbers) + 1)):
        found = ", ".join(f"fc{number}" for number in numbers)
        raise CheckpointError(f"the heads are {found} instead of fc1, fc2, ... without a gap; {_USE_MODEL}")
    if len(numbers) < 2:
        raise CheckpointError(
            "the network has one head, 'net.fc1': a single-task network has nothing to share; two or more are needed"
        )
    return tuple(_read_head(shapes, number) for number in numbers)


def _read_head(shapes: Shapes, number: int) -> Head:
    linear, final = (shapes[f"net.fc{number}.{layer}.weight"] for layer in ("linear", "final"))
    if len(linear) != 2 or len(final) != 2:
        raise CheckpointError(f"head 'net.fc{number}' is not made of linear layers; {_USE_MODEL}")
    return Head(hidden=linear[0], size=final[0])


def build(layout: Layout) -> torch.nn.Module:
    """Build the network, with fresh weights, under the names of the article's ``state_dict``.

    Its ``forward`` takes ``(N, 3, H, W) float32`` and returns a tuple of ``(N, size) float32``, one per head, in the order
    fc1, fc2, .... Like the article's, it calls the backbone again for every head: the exporter merges the copies, counts them
    and proves it.
    """
    from torch import nn
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    class ArticleNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet(
                Bottleneck if layout.bottleneck else BasicBlock,
                list(layout.blocks),
                groups=layout.groups,
                width_per_group=layout.width_per_group,
            )
            features = self.net.fc.in_features
            self.net.fc = nn.Identity()
            for number, head in enumerate(layout.heads, start=1):
                self.net.add_module(f"fc{number}", _head(features, head))

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            heads = (self.net.get_submodule(f"fc{number}") for number in range(1, len(layout.heads) + 1))
            return tuple(head(self.net(image)) for head in heads)

    return ArticleNetwork()


def built_empty(layout: Layout) -> torch.nn.Module:
    """Build the network without memory for its weights, on the meta device."""
    import torch

    with torch.device("meta"):
        return build(layout)


def layout_of(network: torch.nn.Module) -> Layout | None:
    """Return the layout of a network that is the article's, whatever its class: its names are, and it computes the same.

    The network and one that is built from its tensors are run on the same two random images. A network of another ``forward``,
    such as one that returns its heads in another order, is not the article's.

    Args:
        network: takes ``(N, 3, H, W) float32``; in eval mode, on the CPU.
    """
    import torch

    state = network.state_dict()
    if not recognises(state):
        return None
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    try:
        layout = read_layout({name: tuple(tensor.shape) for name, tensor in state.items()})
        rebuilt = built_empty(layout)
        rebuilt.load_state_dict(state, assign=True)
        with torch.inference_mode():
            found, expected = network(images), rebuilt.eval()(images)
        found = list(found.values()) if isinstance(found, Mapping) else list(found)
        same = len(found) == len(expected) and all(map(torch.allclose, found, expected))
    except Exception:  # noqa: BLE001 - the network's own code runs here and can return anything
        return None
    return layout if same else None


def _head(features: int, head: Head) -> torch.nn.Module:
    from torch import nn

    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(features, head.hidden),
            relu1=nn.ReLU(),
            final=nn.Linear(head.hidden, head.size),
        )
    )
