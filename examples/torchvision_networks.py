"""Networks from a library with heads of your own: torchvision's backbones for ``mtl-export --model``.

    python examples/torchvision_networks.py efficientnet weights.pt
    mtl-export weights.pt --model examples.torchvision_networks:efficientnet \\
        --task age=regression:years --task smiling=binary:no,yes --task place=multiclass:office,street,forest

A factory is called without arguments and returns the network, whose weights are in the file. If you have trained weights, you need
only the factory; the script makes fresh ones, so that the commands can be tried: random but the same every time, with BatchNorm
statistics from images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, LayerNorm2d
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from mtl_deploy.calibration.data.images import synthetic_images

CLASSES = 5  # of a segmentation
PLACES = 3

SETTLING = 128  # images for BatchNorm's statistics


class Vectors(NamedTuple):
    """Three values per image."""

    age: Tensor
    smiling: Tensor
    place: Tensor


class Trunk(nn.Module):
    """A backbone that gives a vector, and one linear head per task."""

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.age, self.smiling, self.place = nn.Linear(width, 1), nn.Linear(width, 1), nn.Linear(width, PLACES)

    def forward(self, image: Tensor) -> Vectors:
        features = self.trunk(image)
        return Vectors(self.age(features), self.smiling(features), self.place(features))


class Maps(nn.Module):
    """LR-ASPP's backbone with its own head for segmentation, a head of the same kind for depth, and a head for the place.

    Both maps are at stride 8, as LR-ASPP's head gives them: the deployed graph brings them to the image's size.
    """

    def __init__(self, network: nn.Module, low: int = 40, high: int = 960) -> None:
        super().__init__()
        self.trunk, self.segmentation = network.backbone, network.classifier
        self.depth = LRASPPHead(low, high, num_classes=1, inter_channels=64)
        self.place = nn.Linear(high, PLACES)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image)
        return {
            "segmentation": self.segmentation(features),
            "depth": self.depth(features),
            "place": self.place(features["high"].mean((2, 3))),
        }


class FullSize(nn.Module):
    """DeepLabV3 as torchvision runs it, up to the image's size, and a head for depth that runs the backbone once more.

    ``mtl-export`` finds the second run and merges it with the first.
    """

    def __init__(self, network: nn.Module, high: int = 960) -> None:
        super().__init__()
        self.network = network
        self.near = nn.Sequential(
            nn.Conv2d(high, 64, 1, bias=False), nn.BatchNorm2d(64), nn.Hardswish(), nn.Conv2d(64, 1, 1)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        near = self.near(self.network.backbone(image)["out"])
        size = image.shape[-2:]
        depth = functional.interpolate(near, size=size, mode="bilinear", align_corners=False)
        return {"segmentation": self.network(image)["out"], "depth": depth}


def efficientnet() -> nn.Module:
    """EfficientNet-B0: depthwise convolutions, SiLU, squeeze and excitation."""
    network = models.efficientnet_b0(weights=None)
    width = network.classifier[1].in_features
    network.classifier = nn.Identity()
    return Trunk(network, width)


def convnext() -> nn.Module:
    """ConvNeXt with a fifth of ConvNeXt-Tiny's width: LayerNorm over channels, GELU, linear layers over a map's last axis."""
    widths = (32, 64, 128, 160)
    blocks = [CNBlockConfig(width, after, 2) for width, after in zip(widths, (*widths[1:], None), strict=True)]
    network = models.ConvNeXt(blocks)
    network.classifier = nn.Sequential(LayerNorm2d(widths[-1], eps=1e-6), nn.Flatten(1))
    return Trunk(network, widths[-1])


def vit() -> nn.Module:
    """Vision Transformer for images of 64x64: four layers of three heads on 64 patches; the tasks read the class token."""
    width = 96
    network = models.VisionTransformer(
        image_size=64, patch_size=8, num_layers=4, num_heads=3, hidden_dim=width, mlp_dim=2 * width
    )
    network.heads = nn.Identity()
    return Trunk(network, width)


def lraspp() -> nn.Module:
    """LR-ASPP on a dilated MobileNetV3-Large: two tasks with one value per pixel, one with one value per image."""
    return Maps(models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES))


def deeplab() -> nn.Module:
    """DeepLabV3 on a dilated MobileNetV3-Large, whose maps are as large as the image."""
    network = models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    network.classifier = DeepLabHead(
        960, CLASSES, atrous_rates=(2, 4, 6)
    )  # for images smaller than torchvision's 520 pixels
    return FullSize(network)


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made for made in (efficientnet, convnext, vit, lraspp, deeplab)
}


def weights(name: str, *, size: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh weights of a network, the same for the same seed.

    Args:
        name: name of a factory.
        size: height and width of the images for BatchNorm's statistics.
        seed: for the weights.
    """
    torch.manual_seed(seed)
    network = FACTORIES[name]().eval()
    with torch.no_grad():
        for part, tensor in network.named_parameters():
            if part.endswith("layer_scale"):
                tensor.uniform_(0.2, 1)  # 1e-6 before training
            elif part.endswith("class_token"):
                tensor.normal_(std=0.5)
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(std=0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.train()  # alone: nothing is dropped
                module.momentum = None  # the statistics of the one batch
            elif isinstance(module, nn.Linear) and module.bias is not None:
                module.weight.normal_(std=module.in_features**-0.5)
                module.bias.normal_(std=0.1)
        for module in network.modules():
            if getattr(module, "use_res_connect", False):
                module.block[-1][
                    1
                ].weight *= 0.3  # sums of equal parts amplify rounding; trained networks are not like that
        images = torch.from_numpy(synthetic_images(SETTLING, size, size, seed=seed)).permute(0, 3, 1, 2) / 255
        network((images - 0.45) / 0.225)
    return network.eval().state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(FACTORIES))
    parser.add_argument("file", type=Path, help="file to write fresh weights to, as a state_dict")
    arguments = parser.parse_args()
    torch.save(weights(arguments.network), arguments.file)


if __name__ == "__main__":
    main()
