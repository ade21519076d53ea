"""Programs of real networks load without ``--trust-pickle``, and compute what they did."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import dense_networks
import pytest
import small_networks
import torch
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

from mtl_deploy.export.network.checkpoint import load_checkpoint

BATCH = {0: Dim("batch", min=1, max=64)}
FREE = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
CANNOT_BE_SAVED = {
    "FixedBatch",
    "FixedSize",
    "Named",
}  # fixed sizes of their own; a named tuple that torch does not know


def round_trip(network: nn.Module, shape: tuple[int, int, int, int], folder: Path, sizes: dict[int, object]) -> None:
    """Save a network as a program, load it, and compare what it gives with what the network gives."""
    path = folder / "model.pt2"
    images = torch.linspace(-2, 2, 3 * shape[0] * shape[2] * shape[3]).reshape(shape)
    network.eval()
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=(sizes,) if sizes else None), path)
    loaded = load_checkpoint(path)
    assert loaded.input_shape is not None
    assert [size is None for size in loaded.input_shape] == [place in sizes for place in range(4)]
    with torch.inference_mode():
        found, expected = tree_leaves(loaded.network(images)), tree_leaves(network(images))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other)


def own(module: ModuleType) -> list[type[nn.Module]]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, nn.Module)]
    return [kind for kind in found if kind.__module__ == module.__name__ and kind.__name__ not in CANNOT_BE_SAVED]


@pytest.mark.parametrize("kind", [*own(small_networks), *own(dense_networks)], ids=lambda kind: kind.__name__)
def test_the_tests_own_networks(kind: type[nn.Module], tmp_path: Path) -> None:
    round_trip(kind(), (2, 3, 32, 32), tmp_path, dict(BATCH))


@pytest.mark.parametrize("sizes", [{}, FREE], ids=["fixed", "free"])
@pytest.mark.parametrize("kind", [small_networks.Repeating, dense_networks.Scenes], ids=lambda kind: kind.__name__)
def test_fixed_and_free_sizes(kind: type[nn.Module], sizes: dict[int, object], tmp_path: Path) -> None:
    round_trip(kind(), (2, 3, 32, 32), tmp_path, sizes)


class WithoutGradients(small_networks.Shared):
    """A backbone that is not trained: its part of the program is a graph inside a node."""

    def forward(self, x: torch.Tensor) -> object:
        with torch.no_grad():
            features = self.backbone(x)
        return self.age(features), self.race(features)


def test_a_graph_inside_a_node(tmp_path: Path) -> None:
    round_trip(WithoutGradients(), (2, 3, 32, 32), tmp_path, dict(BATCH))


TORCHVISION = {
    "lraspp_mobilenet_v3_large": 64, "resnet18": 64,
}  # fmt: skip
MORE = {
    "alexnet": 224, "convnext_tiny": 64, "deeplabv3_resnet50": 64, "densenet121": 64, "efficientnet_b0": 64,
    "efficientnet_v2_s": 64, "fcn_resnet50": 64, "googlenet": 96, "inception_v3": 299, "maxvit_t": 224,
    "mnasnet0_5": 64, "regnet_y_400mf": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "swin_t": 224, "swin_v2_t": 224, "vgg11": 64, "vit_b_32": 224,
    "wide_resnet50_2": 64,
}  # fmt: skip


def torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    options = {"weights_backbone": None} if hasattr(models.segmentation, name) else {}
    network: nn.Module = models.get_model(name, weights=None, **options)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks(name: str, tmp_path: Path) -> None:
    round_trip(torchvision_network(name), (2, 3, TORCHVISION[name], TORCHVISION[name]), tmp_path, dict(BATCH))


@pytest.mark.slow
def test_a_vision_transformer(tmp_path: Path) -> None:
    from torchvision import models

    network = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
    )
    round_trip(network, (2, 3, 32, 32), tmp_path, dict(BATCH))


@pytest.mark.extended
@pytest.mark.parametrize("name", MORE)
def test_more_of_torchvisions_networks(name: str, tmp_path: Path) -> None:
    size = MORE[name]
    round_trip(torchvision_network(name), (2, 3, size, size), tmp_path, dict(BATCH))
