"""The networks of goals.py: fresh weights, a bundle, our INT8 graphs and NNCF's, made where they are missing.

A fresh network's BatchNorm has the statistics of one batch of photographs, so that activations have the sizes that they have in
use, and its residual blocks add little to what they get: sums of equal parts amplify rounding, and trained networks are not like
that.
Both quantizers get the same photographs.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from article import BLOCKS, SIZES
from fresh_networks import TASKS, make
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.models import resnet

from mtl_deploy.bench.cli import main as mtl_bench
from mtl_deploy.calibration.cli import main as mtl_calibrate
from mtl_deploy.export.cli import main as mtl_export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.networks import article, refinenet
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

Pictures = npt.NDArray[np.uint8]
DENSE_TASKS = ("segmentation=segmentation", "depth=depth:metres")
ADDED = 0.3  # of a residual block's own result, where a fresh one adds all of it
SETTLING = 16  # photographs for BatchNorm's statistics
SMALLEST_CROP = 0.4  # of a photograph's shorter side


@dataclass(frozen=True)
class Goal:
    """A network to measure.

    Attributes:
        name: its name for people.
        model: ``--model`` of ``mtl-export``; None: the checkpoint says it all.
        tasks: ``--task`` of ``mtl-export``.
        height: of its images, in pixels.
        width: of its images, in pixels.
    """

    name: str
    model: str | None
    tasks: tuple[str, ...]
    height: int = 224
    width: int = 224


def networks(scale: float = 1.0) -> dict[str, Goal]:
    """Return the networks of the goals; a scale below 1 makes their images smaller, for trying the script."""
    side = _side(224, scale)
    torchvision = {
        key: Goal(name, f"fresh_networks:{key}", TASKS, side, side)
        for key, name in {
            "mobilenet_v2": "MobileNetV2",
            "mobilenet_v3_large": "MobileNetV3-Large",
            "efficientnet_b0": "EfficientNet-B0",
        }.items()
    }
    dense = "mtl_deploy.export.networks.refinenet:nyud"
    return {
        "resnet50": Goal("ResNet-50", None, (), side, side),
        **torchvision,
        "refinenet": Goal("dense network", dense, DENSE_TASKS, _side(256, scale), _side(320, scale)),
    }


def _side(pixels: int, scale: float) -> int:
    return max(64, 32 * round(pixels * scale / 32))


def photographs(count: int, height: int, width: int, seed: int) -> Pictures:
    """Cut pieces of random place and size out of scikit-learn's two photographs; ``(count, height, width, 3) uint8``, RGB."""
    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    found = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        source = sources[i % len(sources)]
        most = min(source.width / width, source.height / height)
        scale = most * rng.uniform(SMALLEST_CROP, 1)
        wide, high = scale * width, scale * height
        left, top = rng.uniform(0, source.width - wide), rng.uniform(0, source.height - high)
        piece = source.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
        pixels = np.asarray(piece)
        found[i] = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return found


def fresh(key: str) -> nn.Module:
    """Return a network with fresh weights, the same ones every time."""
    torch.manual_seed(0)
    if key == "refinenet":
        return refinenet.nyud()
    if key == "resnet50":
        heads = tuple(article.Head(2048, size) for size in SIZES)
        return article.build(article.Layout(True, BLOCKS[50], 1, 64, heads))
    return make(key)


def settle(network: nn.Module, pictures: Pictures) -> nn.Module:
    """Give a network's BatchNorm the statistics of some pictures, and let its residual blocks add little."""
    network.eval()
    for module in network.modules():
        last = last_norm(module)
        if last is not None:
            nn.init.constant_(last.weight, ADDED)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()  # alone: nothing is dropped
            module.momentum = None  # the statistics of the one batch
    with torch.no_grad():
        network(network_input(pictures, Preprocessing(*pictures.shape[1:3])))
    return network.eval()


def last_norm(module: nn.Module) -> nn.Module | None:
    """Return the BatchNorm at the end of a residual block; None of other modules."""
    if isinstance(module, resnet.Bottleneck):
        return module.bn3
    if getattr(module, "use_res_connect", False) or getattr(module, "residual", False):  # torchvision's, refinenet's
        return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    return None


def make_bundle(key: str, goal: Goal, out: Path, images: int) -> tuple[Path, Path]:
    """Make what is missing of a network: ``KEY.pt`` and ``KEY.mtl`` with our INT8 graphs; return the bundle and the photographs.

    Args:
        key: the network's.
        goal: what it is.
        out: the folder.
        images: photographs to calibrate with; they are written to a file of their own.
    """
    checkpoint, bundle = out / f"{key}.pt", out / f"{key}.mtl"
    calibration = out / f"photographs-{goal.height}x{goal.width}.npy"
    if not calibration.is_file():
        np.save(calibration, photographs(images, goal.height, goal.width, seed=1))
    if not checkpoint.is_file():
        pictures = photographs(SETTLING, goal.height, goal.width, seed=0)
        torch.save(settle(fresh(key), pictures).state_dict(), checkpoint)
    if not bundle.is_dir():
        tasks = [part for task in goal.tasks for part in ("--task", task)]
        model = ["--model", goal.model] if goal.model else []
        size = f"{goal.height}x{goal.width}"
        run(mtl_export, [checkpoint, *model, *tasks, "--image-size", size, "--quick", "-o", bundle, "--quiet"])
    if not any(one.precision == "int8-cpu" for one in open_bundle(bundle).manifest.artifacts):
        run(mtl_calibrate, [bundle, "--calibration-data", calibration, "--no-measure", "--quiet"])
    return bundle, calibration


def measure_graphs(bundle: Path, threads: int | None) -> None:
    """Measure which graph is fastest on which library here: ``load()`` chooses by it.

    Args:
        bundle: the bundle.
        threads: of each library; None: its own number.
    """
    run(mtl_bench, [bundle, "--record", "--quiet", *([] if threads is None else ["--threads", threads])])


def quantize_with_nncf(bundle: Path, calibration: Path, target: Path, python: Path) -> None:
    """Let NNCF quantize a bundle's FP32 graph, unless that was done before.

    Args:
        bundle: the bundle.
        calibration: the photographs that it calibrates with.
        target: the ``.xml`` to write.
        python: a Python that has NNCF.
    """
    if target.is_file():
        return
    script = Path(__file__).with_name("goal_nncf.py")
    command = [python, script, bundle / "fp32.onnx", calibration, target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"NNCF failed on {bundle}:\n{done.stderr}")


def run(command: object, arguments: list[object]) -> None:
    """Run a command of the toolkit in this process, without its tables."""
    assert callable(command)
    with contextlib.redirect_stdout(io.StringIO()):
        code = command(list(map(str, arguments)))
    if code:
        raise SystemExit(f"exit code {code}: {' '.join(map(str, arguments))}")


def python_with_nncf(out: Path) -> Path:
    """Return this Python if it has NNCF, otherwise one in ``OUT/nncf``, which is made if it is missing."""
    if find_spec("nncf") is not None:
        return Path(sys.executable)
    python = out / "nncf" / "bin" / "python"
    if not python.is_file():
        from importlib.metadata import version

        subprocess.run([sys.executable, "-m", "venv", str(out / "nncf")], check=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "nncf", f"openvino=={version('openvino')}"], check=True)
    return python
