"""The options for making INT8 graphs."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_deploy.runtime.errors import OptionError

CHOICES = ("auto", "minmax", "percentile", "mse", "entropy")  # those of ranges.METHODS, without its imports
SAMPLES = 1024
EVALUATION = 0.5
"""Share of the images that is used for calibration; accuracy is measured on the others, which are held out."""
SEARCHED = 1 / 3
"""Share of the held-out images that is used to choose layers where there are budgets."""


@dataclass(frozen=True)
class Int8Options:
    """How INT8 graphs are made.

    Attributes:
        method: how ranges are chosen, or ``auto``: the method with the least error on the calibration images.
        weight_bits: of the graph for CPUs: 8, or 7 where 8-bit sums can saturate (x86 without VNNI).
        budgets: the text of ``--max-drop``; None: quantize every layer that can be, whatever it costs.
        samples: largest number of images to use, for calibration and evaluation together.
        seed: for drawing and splitting the images.
        threads: of ONNX Runtime; None: one per core.
        opset: 17 for TensorRT 8.6, where Q/DQ accept only FP32, so that everything that is not INT8 stays FP32; None: 19, with
            FP16.
        measure: whether the graphs are measured on this machine, so that loading can choose by it.
        tolerance: largest mean error allowed against the FP32 graph, relative to the error of an answer that does not look at
            the image: a guard against broken graphs, not a measure of accuracy.
    """

    method: str = "auto"
    weight_bits: int = 8
    budgets: str | None = None
    samples: int = SAMPLES
    seed: int = 0
    threads: int | None = None
    opset: int | None = None
    tolerance: float = 0.8
    measure: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a value cannot be used.
        """
        if self.method not in CHOICES:
            raise OptionError(f"--calibration-method {self.method}: choose from {', '.join(CHOICES)}")
        if self.weight_bits not in (7, 8):
            raise OptionError(f"--weight-bits {self.weight_bits}: choose 7 or 8")
        if self.samples < 2:
            raise OptionError(f"--calibration-samples {self.samples}: use 2 or more; 512 to 1024 are enough")
        require_threads(self.threads)


def require_threads(threads: int | None) -> None:
    """Check a number of threads.

    Raises:
        OptionError: it is below 1.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"--threads {threads}: use 1 or more")
