"""Networks for digits, trained in the test set-up: an easy one, one that INT8 hurts, one with an outlier in a head.

``tests/calibration/conftest.py`` trains and exports them. The module is not called ``networks``: ``tests/export`` has one of that
name, and both folders are importable in one test process.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import data
import numpy as np
import numpy.typing as npt
import torch
import train
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.signature import Signature

OUTLIER = 100.0
"""How far one unit of a head reaches above all others of its layer."""

UNEVEN = 200.0
"""The largest ratio between the scales of two channels of a bottleneck."""

SEED = 0
CALIBRATION = 256  # images


class Answers(NamedTuple):
    """The network's outputs, in the order of ``examples/digits/tasks.toml``."""

    digit: Tensor
    parity: Tensor
    ink: Tensor


class Digits(nn.Module):
    """A backbone, and one head per task with two hidden layers."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.digit, self.parity, self.ink = (_head(width, size) for size in train.SIZES)

    def forward(self, image: Tensor) -> Answers:
        features = self.backbone(image)
        return Answers(self.digit(features), self.parity(features), self.ink(features))


def _head(width: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, size))


@dataclass(frozen=True)
class Deployed:
    """A trained network as a bundle, with real images.

    Attributes:
        bundle: FP32 and FP16, no separate models; uint8 in, decoded outputs. Tests copy it before they change it.
        calibration: images that the network was trained on.
        evaluation: 360 images, held out from training and calibration.
        folder: ``train`` and ``test``, both splits as PNG files with ``labels.csv``.
    """

    bundle: Path
    calibration: data.Split
    evaluation: data.Split
    folder: Path

    @property
    def content(self) -> bytes:
        """The FP32 graph's file."""
        return (self.bundle / "fp32.onnx").read_bytes()

    @property
    def signature(self) -> Signature:
        return open_bundle(self.bundle).manifest.signature


def labels(split: data.Split) -> dict[str, npt.NDArray[np.generic]]:
    """Return the truth by task, as ``CalibrationData.labels`` holds it."""
    return {"digit": split.digit, "parity": split.parity, "ink": split.ink.astype(np.float64)}


def scores(split: data.Split, outputs: Mapping[str, npt.NDArray[np.floating]]) -> dict[str, float]:
    """Return each task's main metric on decoded outputs: accuracies as shares, the mean absolute error of ink in percent."""
    return {
        "digit": float(np.mean(outputs["digit"].argmax(1) == split.digit)),
        "parity": float(np.mean((outputs["parity"][:, 0] >= 0.5) == split.parity)),
        "ink": float(np.abs(outputs["ink"][:, 0] - split.ink).mean()),
    }


def mobile() -> Digits:
    """MobileNetV2 of a third of the usual width, with ReLU6."""
    torch.manual_seed(SEED)
    return Digits(nn.Sequential(mobilenet_v2(width_mult=0.35).features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1280)


def plain() -> Digits:
    """Five convolutions."""
    torch.manual_seed(SEED)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((3, 16, 24, 32, 48, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return Digits(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64)


def resnet() -> nn.Module:
    """The demo's ResNet-18."""
    torch.manual_seed(SEED)
    return train.make_network()


def trained_resnet(split: data.Split) -> nn.Module:
    """The demo's ResNet-18 after three of its six epochs; its file is a state_dict that ``mtl-export`` knows."""
    network = resnet()
    arguments = argparse.Namespace(weighting="fixed", seed=SEED, learning_rate=2e-3, epochs=3, batch=48)
    few = data.Split(*(values[:60] for values in vars(split).values()))  # what it prints is not read
    train.fit(network, split, few, arguments)
    return network.eval()


def trained_mobile(split: data.Split) -> nn.Module:
    """A trained MobileNetV2 two of whose stages have channels of very uneven scales."""
    network = mobile()
    _fit(network, split, epochs=10)
    for stage in (range(4, 7), range(11, 14)):
        unbalance(network.backbone[0], stage)
    return network


def trained_outlier(split: data.Split) -> nn.Module:
    """A trained plain network; one unit of the ink head's first layer reaches 100 times above the others."""
    network = plain()
    _fit(network, split, epochs=6)
    add_outlier(network, train.normalised(split.images[:CALIBRATION]))
    return network


def add_outlier(network: Digits, images: Tensor, task: str = "ink") -> None:
    """Scale the largest unit of a head's first layer up, and what reads it down: the network answers as before."""
    head = network.get_submodule(task)
    first, second = head[0], head[2]
    with torch.inference_mode():
        peaks = head[:2](network.backbone(images)).amax(0)
    unit = int(peaks.argmax())
    others = float(peaks[torch.arange(len(peaks)) != unit].max())
    factor = OUTLIER * others / float(peaks[unit])
    with torch.no_grad():
        first.weight[unit] *= factor
        first.bias[unit] *= factor
        second.weight[:, unit] /= factor


def unbalance(blocks: nn.Sequential, stage: range) -> None:
    """Spread the scales of a stage's channels; the layers that read them undo it, so that the network answers as before.

    The channels of a stage of MobileNetV2 are linear and summed by its residual connections, so they share their scales. Trained
    networks come to such scales by themselves: Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias
    Correction, ICCV 2019, arXiv 1906.04721, figure 2.
    """
    norms = [blocks[i].conv[-1] for i in stage]
    readers = [blocks[i].conv[0][0] for i in range(stage.start + 1, stage.stop + 1)]
    exponents = np.random.default_rng(stage.start).uniform(-0.5, 0.5, norms[0].num_features)
    scales = torch.tensor(UNEVEN**exponents, dtype=torch.float32)
    with torch.no_grad():
        for norm in norms:
            norm.weight *= scales
            norm.bias *= scales
        for reader in readers:
            reader.weight /= scales.view(1, -1, 1, 1)


def _fit(network: nn.Module, split: data.Split, *, epochs: int) -> None:
    """Train on the three tasks, batches of 48; leaves the network in evaluation mode."""
    torch.manual_seed(SEED)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    steps = epochs * -(-len(split) // 48)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.to(memory_format=torch.channels_last).train()  # a third faster
    for epoch in range(epochs):
        for images, *truth in train.batches(split, 48, seed=(SEED, epoch)):
            optimizer.zero_grad()
            torch.stack(train.losses_of(list(network(images)), *truth)).sum().backward()
            optimizer.step()
            schedule.step()
    network.to(memory_format=torch.contiguous_format).eval()
