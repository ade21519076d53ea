"""Real handwritten digits as a three-task data set: which digit, odd or even, and how much ink.

scikit-learn ships 1797 scans of 8x8 pixels with 17 levels (UCI ML hand-written digits, test part). They are written as RGB images
of 64x64 pixels, so that training, export and the deployed network all see the same files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 64  # pixels
LEVELS = 16  # highest grey level of the scans
HELD_OUT = 360  # of 1797


@dataclass(frozen=True)
class Split:
    """Images with the labels of each task.

    Attributes:
        images: ``(N, 64, 64, 3) uint8, RGB``, white ink on black.
        digit: ``(N,) int64``, 0 to 9.
        parity: ``(N,) int64``, 0 even, 1 odd.
        ink: ``(N,) float32``, percent: the mean of the scan's pixels over their highest level.
    """

    images: npt.NDArray[np.uint8]
    digit: npt.NDArray[np.int64]
    parity: npt.NDArray[np.int64]
    ink: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def load(seed: int = 0) -> tuple[Split, Split]:
    """Return the training split and the held-out split; the same seed gives the same splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.images))
    return _split(digits, order[HELD_OUT:]), _split(digits, order[:HELD_OUT])


def _split(digits: object, chosen: npt.NDArray[np.int64]) -> Split:
    scans, target = digits.images[chosen], digits.target[chosen].astype(np.int64)  # type: ignore[attr-defined]
    ink = (100 * scans.mean(axis=(1, 2)) / LEVELS).astype(np.float32)
    return Split(np.stack([_enlarged(scan) for scan in scans]), target, target % 2, ink)


def _enlarged(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    grey = Image.fromarray(np.rint(scan * 255 / LEVELS).astype(np.uint8))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB"))


def write(split: Split, folder: Path) -> None:
    """Write a split as PNG files, with ``labels.csv`` (file, digit, parity, ink) beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "digit", "parity", "ink"])
        for i, image in enumerate(split.images):
            name = f"{i:04d}.png"
            Image.fromarray(image).save(folder / name)
            writer.writerow([name, split.digit[i], split.parity[i], f"{split.ink[i]:.4f}"])


def read_labels(folder: Path) -> Iterator[tuple[Path, int, int, float]]:
    """Read ``labels.csv`` back: an image's path, its digit, its parity, its ink in percent."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield folder / row["file"], int(row["digit"]), int(row["parity"]), float(row["ink"])
