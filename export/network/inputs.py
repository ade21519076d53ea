"""What a network takes: images, normalised as it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]


def network_input(images: Images, preprocessing: Preprocessing, *, double: bool = False) -> torch.Tensor:
    """Turn ``(N, H, W, C) uint8``, RGB where C is 3, into the normalised ``(N, C, H, W) float32`` that the network was trained on.

    Args:
        images: pixels.
        preprocessing: with mean, std and the network's order of channels.
        double: return float64 instead.
    """
    import torch

    dtype = torch.float64 if double else torch.float32
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(dtype) / 255
    if preprocessing.order == "bgr":
        pixels = pixels.flip(1)
    mean = torch.tensor(preprocessing.mean, dtype=dtype).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=dtype).view(1, -1, 1, 1)
    return ((pixels - mean) / std).contiguous()
