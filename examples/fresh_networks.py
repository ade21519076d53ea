"""Torchvision networks with fresh weights, which many people try a tool with first: does the default export work, with FP16?

    python examples/fresh_networks.py --out /tmp/fresh
    python examples/fresh_networks.py --out /tmp/fresh --networks resnet50,vit_b_32 --seeds 0

Each network gets heads for age, gender and race; its BatchNorm statistics come from 32 pictures with the statistics of photographs.
It prints the share of the multiply-adds that is in FP16 and the error of the worst task relative to its tolerance. The exit code is
1 if an export fails, if FP16 is left out, or if less than 80 % of the multiply-adds are in FP16.

A fresh network is harder than a trained one: its outputs hardly vary from image to image, so rounding is large in comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.cli import main as mtl_export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.console.command import table

NETWORKS = (
    "resnet18",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_32",
)
TASKS = ("age=regression:years", "gender=binary:male,female", "race=multiclass:White,Black,Asian,Indian,Other")
LEAST_SHARE = 0.8
SETTLING = 32


class Faces(nn.Module):
    """A backbone and the article's three heads, each one linear layer."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.age, self.gender, self.race = nn.Linear(width, 1), nn.Linear(width, 1), nn.Linear(width, 5)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(image)
        return {"age": self.age(features), "gender": self.gender(features), "race": self.race(features)}


def make(name: str) -> nn.Module:
    """Return a network whose classifier is replaced by the heads."""
    network = getattr(torchvision.models, name)(weights=None)
    if hasattr(network, "fc"):
        width, network.fc = network.fc.in_features, nn.Identity()
    elif hasattr(network, "heads"):
        width, network.heads = network.heads.head.in_features, nn.Identity()
    else:
        width, network.classifier[-1] = network.classifier[-1].in_features, nn.Identity()
    return Faces(network, width)


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """Let ``--model fresh_networks:resnet50`` name any of the networks."""
    if name in NETWORKS:
        return lambda: make(name)
    raise AttributeError(name)


def fresh(name: str, seed: int, size: int = 224) -> nn.Module:
    """Return a network with fresh weights and with BatchNorm statistics from pictures."""
    torch.manual_seed(seed)
    network = make(name).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()  # alone: nothing is dropped
            module.momentum = None  # the statistics of the one batch
    with torch.no_grad():
        network(network_input(natural_images(SETTLING, size, size, seed=100 + seed), Preprocessing(size, size)))
    return network.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and bundles")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: all")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(__file__).parent))
    rows, sound = [], True
    for name in arguments.networks.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            row, passed = export(name, seed, arguments.out)
            sound &= passed
            rows.append(row)
            print("  ".join(row), flush=True)
    print()
    columns = [
        "network",
        "seed",
        "exit code",
        "multiply-adds in FP16",
        "layers kept by search",
        "worst error / tolerance",
        "seconds",
    ]
    print(table(columns, rows))
    return 0 if sound else 1


def export(name: str, seed: int, out: Path) -> tuple[list[str], bool]:
    """Export one network with the default command; return a row of the table, and whether the result is as it should be."""
    checkpoint, bundle = out / f"{name}-{seed}.pt", out / f"{name}-{seed}.mtl"
    torch.save(fresh(name, seed).state_dict(), checkpoint)
    tasks = [part for task in TASKS for part in ("--task", task)]
    started = time.perf_counter()
    arguments = [
        str(checkpoint),
        "--model",
        f"fresh_networks:{name}",
        *tasks,
        "--engine",
        "none",
        "-o",
        str(bundle),
        "--force",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        code = mtl_export(arguments)
    seconds = f"{time.perf_counter() - started:.0f}"
    if code:
        return [name, str(seed), str(code), "", "", "", seconds], False
    manifest = open_bundle(bundle).manifest
    details = next((each.details for each in manifest.artifacts if each.path == "fp16.onnx"), None)
    if details is None:
        return [name, str(seed), "0", "left out", "", "", seconds], False
    worst = max(row["excess"] for row in manifest.verification)
    kept = len(details.get("fit", {}).get("keep", ()))
    share = f"{100 * details['share']:.1f} %"
    return [name, str(seed), "0", share, str(kept), f"{worst:.2f}", seconds], details["share"] >= LEAST_SHARE


if __name__ == "__main__":
    sys.exit(main())
