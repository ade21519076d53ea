"""The tasks' losses and metrics. Labels of 255 (classes) and NaN (depth, normals) are ignored."""

from __future__ import annotations

import numpy as np
import torch
from frames import TASKS, UNKNOWN, Frames
from shapes import CLASSES
from torch import Tensor, nn

Outputs = dict[str, Tensor]
Truth = dict[str, Tensor]


def full_size(outputs: Outputs, size: tuple[int, int]) -> Outputs:
    """Bring raw outputs to the labels' size, as the deployed graph does."""
    return {
        task: nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
        for task, values in outputs.items()
    }


def losses_of(outputs: Outputs, truth: Truth, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Return cross entropy, berHu and cosine loss, each the mean over the pixels whose label is known.

    Args:
        outputs: at the labels' size: ``segmentation (N, C, H, W)`` logits, ``depth (N, 1, H, W)`` metres, ``normals
            (N, 3, H, W)`` of any length.
        truth: ``segmentation (N, H, W) int64``, ``depth (N, 1, H, W)``, ``normals (N, 3, H, W)``.
        weights: ``(C,)``, class weights for the cross entropy; None: 1 each.
    """
    known = truth["segmentation"] != UNKNOWN
    entropies = nn.functional.cross_entropy(
        outputs["segmentation"], truth["segmentation"], weights, ignore_index=UNKNOWN, reduction="sum"
    )
    measured = ~truth["depth"].isnan()
    oriented = ~truth["normals"].isnan().any(dim=1)
    cosines = nn.functional.cosine_similarity(outputs["normals"], truth["normals"].nan_to_num(), dim=1)
    return {
        "segmentation": entropies / known.sum().clamp(min=1),
        "depth": berhu(outputs["depth"][measured] - truth["depth"][measured]),
        "normals": (1 - cosines[oriented]).sum() / oriented.sum().clamp(min=1),
    }


def class_weights(frames: Frames) -> Tensor:
    """Return ``(C,) float32``: one over the square root of each class's share of the known pixels, with mean 1 over them."""
    known = frames.segmentation[frames.segmentation != UNKNOWN]
    shares = np.bincount(known, minlength=len(CLASSES)).clip(1) / known.size
    weights = shares**-0.5
    return torch.from_numpy(weights / (shares * weights).sum()).float()


def berhu(errors: Tensor) -> Tensor:
    """Return the mean reverse Huber loss: ``|e|`` up to c, ``(e^2 + c^2) / 2c`` beyond; c is a fifth of the largest ``|e|``.

    Laina et al.: Deeper Depth Prediction with Fully Convolutional Residual Networks, 3DV 2016, arXiv 1606.00373, equation 2.
    """
    if not errors.numel():
        return errors.sum()
    sizes = errors.abs()
    bend = (0.2 * sizes.detach().max()).clamp(min=1e-6)
    return torch.where(sizes <= bend, sizes, (sizes**2 + bend**2) / (2 * bend)).mean()


class Scores:
    """Sums over frames: mean IoU, root mean squared error in metres, mean angular error in degrees."""

    def __init__(self) -> None:
        self.confusion = np.zeros((len(CLASSES), len(CLASSES)))
        self.squares, self.measured = 0.0, 0
        self.degrees, self.oriented = 0.0, 0

    def add(self, classes: np.ndarray, depth: np.ndarray, normals: np.ndarray, truth: Frames) -> None:
        """Add predictions ``(N, H, W)``, ``(N, H, W)`` and ``(N, H, W, 3)``; normals may have any length."""
        known = truth.segmentation != UNKNOWN
        pairs = len(CLASSES) * truth.segmentation[known].astype(np.int64) + classes[known]
        self.confusion += np.bincount(pairs, minlength=self.confusion.size).reshape(self.confusion.shape)
        measured = ~np.isnan(truth.depth)
        self.squares += float(np.square(depth[measured] - truth.depth[measured], dtype=np.float64).sum())
        self.measured += int(measured.sum())
        oriented = ~np.isnan(truth.normals).any(axis=-1)
        found = normals[oriented] / np.linalg.norm(normals[oriented], axis=-1, keepdims=True).clip(1e-6)
        cosines = np.einsum("ij,ij->i", found, truth.normals[oriented])
        self.degrees += float(np.degrees(np.arccos(cosines.clip(-1, 1))).sum())
        self.oriented += int(oriented.sum())

    @property
    def values(self) -> tuple[float, float, float]:
        """Mean IoU from 0 to 1 over the classes that occur, RMSE in metres, mean angular error in degrees."""
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        present = self.confusion.sum(1) > 0
        iou = float((hits[present] / union[present]).mean())
        return iou, float(np.sqrt(self.squares / self.measured)), self.degrees / self.oriented

    def texts(self) -> list[str]:
        """Return the values with their units, in the order of TASKS."""
        iou, rmse, degrees = self.values
        texts = {"segmentation": f"{100 * iou:.1f} %", "depth": f"{rmse:.2f} m", "normals": f"{degrees:.1f} degrees"}
        return [texts[task] for task in TASKS]


def constant_scores(train: Frames, test: Frames) -> Scores:
    """Score the best constant answers: the most frequent class, the mean depth, the mean normal of the training frames."""
    known = train.segmentation[train.segmentation != UNKNOWN]
    scores = Scores()
    shape = test.segmentation.shape
    mean = np.nanmean(train.normals, axis=(0, 1, 2))
    scores.add(
        np.full(shape, np.bincount(known).argmax(), np.int64),
        np.full(shape, np.nanmean(train.depth), np.float32),
        np.broadcast_to(mean, (*shape, 3)),
        test,
    )
    return scores
