"""Whether a graph in float64 computes what it computes in float32, before its float64 becomes the truth.

ONNX Runtime runs the one, ONNX's reference evaluator and PyTorch's kernels the other, and they do not read every operator alike:
LRN, LpPool with ``ceil_mode``, Resize with ``align_corners`` and scales that are no whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mtl_deploy.calibration.observe.spread import spread

IMAGES = 4  # that show how much outputs vary
_APART = 1e-3  # of the spread: float32 rounds a thousandfold finer in a network that is well conditioned
_NUDGES = 100.0  # times what the last bit of the pixels changes: every layer rounds, not the first alone
_UNKNOWN = 0.05  # of the spread, where pixels are whole numbers and have no last bit to change
_LEAST = 1e-6  # the scale of an output that is all zeros

Answer = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def agrees(single: Answer, double: Answer, images: torch.Tensor) -> bool:
    """Return whether float64 answers equal float32's but for rounding, on the first image.

    Rounding is known from float32 alone: an ill-conditioned network, as a fresh EfficientNet is, answers otherwise to images whose
    last bit has changed. What float64 differs by may be a hundred times that, or a thousandth of the output's spread.

    Args:
        single: the graph in float32.
        double: in float64.
        images: :data:`IMAGES` natural ones, ``(N, C, H, W) float32``.
    """
    signs = torch.from_numpy(np.random.default_rng(0).choice([-np.inf, np.inf], images[:1].shape).astype(np.float32))
    every, nudged = single(images), single(torch.nextafter(images[:1], signs))
    exact = double(images[:1].double())
    return all(
        _is_close(*(value.numpy().astype(np.float64) for value in values))
        for values in zip(every, nudged, exact, strict=True)
    )


def _is_close(every: np.ndarray, nudged: np.ndarray, exact: np.ndarray) -> bool:
    found = every[:1]
    if exact.shape != found.shape:
        return False
    noise = float(np.abs(found - nudged).max())
    varies = float(spread(every.reshape(len(every), -1, 1) if every.ndim == 1 else every).max())
    scale = varies if varies > noise else max(float(np.abs(every).max()), _LEAST)
    allowed = max(_APART * scale, _NUDGES * noise) if noise else _UNKNOWN * scale
    return float(np.abs(found - exact).max()) <= allowed  # false for NaN
