"""How INT8 graphs are made, as a command was asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_deploy.runtime.errors import OptionError

CHOICES = ("auto", "minmax", "percentile", "mse", "entropy")  # those of ranges.METHODS, without its imports
SAMPLES = 1024
EVALUATION = 0.5
"""Share of the images that calibrates; the others are held apart, to measure accuracy on."""
SEARCHED = 1 / 3
"""Share of the others that layers are chosen by, where there are budgets."""


@dataclass(frozen=True)
class Int8Options:
    """How INT8 graphs are made.

    Attributes:
        method: how ranges are chosen, or ``auto``: the one with the least error on the calibration images.
        weight_bits: of the processors' graph: 8, or 7 where 8-bit sums can saturate (x86 without VNNI).
        budgets: ``--max-drop`` as it was written; None: quantize all that is worth it, whatever it costs.
        samples: images used at most, for calibration and evaluation together.
        seed: of the sample and the split.
        threads: of ONNX Runtime; None: one a core.
        opset: 17 where TensorRT 8.6 is to read the graph: its Q/DQ take FP32 alone there, so what is not INT8 stays FP32; None: 19,
            and FP16.
        tolerance: largest mean error allowed against the FP32 graph, as a share of how far off an answer is that does not look
            at the image: a guard against broken graphs, not a measure of accuracy.
    """

    method: str = "auto"
    weight_bits: int = 8
    budgets: str | None = None
    samples: int = SAMPLES
    seed: int = 0
    threads: int | None = None
    opset: int | None = None
    tolerance: float = 0.8

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
            raise OptionError(f"--calibration-samples {self.samples}: use 2 or more; 512 to 1024 serve well")
        require_threads(self.threads)


def require_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1.

    Raises:
        OptionError: it is.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"--threads {threads}: use 1 or more")
