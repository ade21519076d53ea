"""What tests of preprocessing share: a photo, presets, and how timm itself prepares an image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

NETWORKS = Path(__file__).parents[2] / "networks"  # modules that a user has in the current folder

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (333, 500, 3), dtype=np.uint8))
TASKS = ["--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass"]
FAST = ["--precision", "fp32", "--no-separate", "--engine", "none"]
RESNET = "torchvision:ResNet50_Weights.IMAGENET1K_V2"
CONFIG = {
    "input_size": (3, 64, 64),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


def timms(image: Image.Image, config: dict[str, Any]) -> np.ndarray:
    """Return the pixels that timm's ``transforms_imagenet_eval`` makes (``timm/data/transforms_factory.py``)."""
    size, share = config["input_size"][1:], config["crop_pct"]
    before = tuple(math.floor(side / share) for side in size)
    mode = InterpolationMode(config["interpolation"])
    if config["crop_mode"] == "squash":
        return np.asarray(CenterCrop(size)(Resize(before, interpolation=mode)(image)))
    if config["crop_mode"] == "center":
        assert before[0] == before[1]
        return np.asarray(CenterCrop(size)(Resize(before[0], interpolation=mode)(image)))
    # ResizeKeepRatio(longest=1.0), then CenterCropOrPad with the mean colour
    ratio = max(image.height / before[0], image.width / before[1])
    height, width = round(image.height / ratio), round(image.width / ratio)
    resized = image.resize((width, height), Image.Resampling[config["interpolation"].upper()])
    fill = tuple(round(255 * value) for value in config["mean"])
    canvas = Image.new("RGB", (size[1], size[0]), fill)
    canvas.paste(resized, ((size[1] - width) // 2, (size[0] - height) // 2))
    return np.asarray(canvas)
