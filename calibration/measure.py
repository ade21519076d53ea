"""``mtl-calibrate --evaluate-only``: how well a bundle does each task on labelled images, at every precision that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import Source, evaluate
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.accuracy.variants import only_batch, runnable, shared_graphs
from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.visible import visible


@dataclass(frozen=True)
class Measured:
    """What was measured; nothing is written into the bundle.

    Attributes:
        bundle: the bundle that was measured.
        source: where the images come from, for people.
        images: number of images.
        matrix: the accuracy of every task at every precision.
        warnings: what makes the data weak, and tasks that the network has not learned.
        skipped: files that were left out, each with the reason.
    """

    bundle: Bundle
    source: str
    images: int
    matrix: AccuracyMatrix
    warnings: tuple[str, ...]
    skipped: dict[str, str]

    def text(self) -> str:
        """Return the report for people."""
        lines = [
            f"Measured on {self.source}; the bundle is unchanged.",
            *(f"warning: {visible(text)}" for text in self.warnings),
        ]
        return "\n".join(lines) + f"\n\n{self.matrix.text()}\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the report for programs, ready for JSON."""
        return {
            "bundle": str(self.bundle.path),
            "data": self.source,
            "images": self.images,
            "accuracy": self.matrix.to_dict(),
            "warnings": list(self.warnings),
            "left_out": self.skipped,
        }


def measure_bundle(
    path: Path,
    images: Path,
    *,
    labels: Path | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress,
) -> Measured:
    """Measure every task of a bundle at every precision.

    Args:
        path: the bundle.
        images: see :func:`~mtl_deploy.calibration.data.dataset.load_data`.
        labels: likewise.
        samples: largest number of images to use; None: all.
        seed: for drawing images and for the intervals.
        threads: of ONNX Runtime; None: one per core.
        progress: shows the steps.

    Raises:
        MtlError: the bundle or the images cannot be used.
    """
    bundle = open_bundle(path)
    signature = bundle.manifest.signature
    names = list(shared_graphs(bundle))
    with progress.step(f"Reading {images}") as say:
        data = load_data(images, signature.preprocessing, signature.tasks, samples=samples, seed=seed, labels=labels)
        say(data.source)
    with progress.step(f"Measuring {', '.join(names)}"):
        sources: dict[str, Source] = {name: runnable(bundle, name) for name in names}
        batch = next((size for name in names if (size := only_batch(bundle, name))), None)
        found = evaluate(sources, data, signature, batch=batch, threads=threads, seed=seed)
    said = doubts(found, data, names[0], decoded=signature.outputs == "decoded", seed=seed)
    return Measured(bundle, data.source, len(data), found.matrix, (*data.warnings, *said), dict(data.skipped))
