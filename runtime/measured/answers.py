"""Whether a graph on a backend answers as it should: the speed of a wrong answer is of no interest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import Bundle
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.images.tensors import tensor_of

from .record import Candidate

_MOST_IMAGES = 8
_MOST_BYTES = 64 << 20  # of images
_EXACT = 2e-3  # what FP32 may differ by between libraries, of a task's largest value
_PIXELS = 5e-3  # likewise, the share of a class map's pixels
_TIMES = (
    2.0  # how many times as far from FP32 as the judged INT8 answers others may be: few images do not say it closer
)
_SEED = 0
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Images:
    """What graphs are compared on.

    Attributes:
        tensor: as the graphs take it, a whole number of batches.
        int8: what the graph in TensorRT's style must give, by task; empty where the bundle does not say.
    """

    tensor: Array
    int8: Outputs


def images_for(bundle: Bundle, batch: int) -> Images:
    """Return the bundle's reference images, or noise where it has none.

    Args:
        bundle: of the graphs.
        batch: images of a call.

    Raises:
        BundleError: the reference is damaged.
    """
    preprocessing = bundle.manifest.signature.preprocessing
    found = reference.read(bundle)
    if found is not None and len(found.images) >= batch:
        size = max(found.images[0].nbytes, 1)
        count = max(min(_MOST_IMAGES, _MOST_BYTES // size, len(found.images)) // batch, 1) * batch
        tensor = np.ascontiguousarray(tensor_of(found.images[:count], preprocessing))
        return Images(tensor, {name: array[:count] for name, array in found.int8.items()})
    rng, shape = np.random.default_rng(_SEED), (batch, *preprocessing.input_shape)
    if preprocessing.input == "uint8":
        return Images(rng.integers(0, 256, shape, dtype=np.uint8), {})
    return Images(rng.standard_normal(shape, dtype=np.float32), {})


class Judge:
    """Compares candidates' answers, which must come in this order: the FP32 graph's first, and of each graph ONNX Runtime's first.

    An FP32 graph must give the same everywhere, up to float32's rounding. INT8 answers depend on how a library rounds, so they are
    judged by how far they are from FP32's: no more than twice as far as those that ``mtl-calibrate`` judged. These are ONNX
    Runtime's for the graph for processors, and the bundle's reference for the one in TensorRT's style.

    Args:
        bundle: of the graphs.
        images: what they are compared on.
        batch: images of a call.
    """

    def __init__(self, bundle: Bundle, images: Images, batch: int) -> None:
        self._tasks = [task.name for task in bundle.manifest.tasks]
        self._images, self._batch = images, batch
        self._exact: Outputs | None = None
        self._judged: dict[str, Outputs] = {"int8": images.int8} if images.int8 else {}

    def fault(self, candidate: Candidate, backend: Backend) -> str | None:
        """Return what is wrong with a candidate's answers; None where nothing is known to be.

        Raises:
            RunError: it does not run.
        """
        found = self._answers(backend)
        if not all(np.isfinite(array).all() for array in found.values()):
            return "its answers are no finite numbers"
        if candidate.precision == "fp32":
            exact = self._exact = self._exact or found
            far = [name for name in self._tasks if not _same(found[name], exact[name])]
            return _differs(far, "FP32's on the other backend") if far else None
        judged = self._judged.get(candidate.precision)
        if judged is None and candidate.precision == "int8-cpu":
            judged = self._judged["int8-cpu"] = found
        if judged is None or self._exact is None:
            return "the bundle has nothing to compare its answers with"
        far = []
        for name in self._tasks:
            exact_one = self._exact[name]
            allowed = _TIMES * _distance(judged[name], exact_one) + _EXACT * _scale(exact_one)
            if not _distance(found[name], exact_one) <= allowed:
                far.append(name)
        return _differs(far, "FP32's by more than INT8 does otherwise") if far else None

    def _answers(self, backend: Backend) -> dict[str, Array]:
        parts: dict[str, list[Any]] = {name: [] for name in self._tasks}
        for start in range(0, len(self._images.tensor), self._batch):
            piece = self._images.tensor[start : start + self._batch]
            for name, array in backend.run({INPUT_NAME: piece}, self._tasks).items():
                parts[name].append(array)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _differs(tasks: list[str], what: str) -> str:
    return f"its answers differ from {what} ({', '.join(tasks)})"


def _scale(exact: Array) -> float:
    return 1.0 if np.issubdtype(exact.dtype, np.integer) else float(np.abs(exact).max(initial=0.0))


def _distance(found: Array, exact: Array) -> float:
    """Return the mean difference, of class maps the share of pixels of another class."""
    if found.shape != exact.shape:
        return float("inf")
    if np.issubdtype(exact.dtype, np.integer):
        return float(np.mean(found != exact))
    return float(np.mean(np.abs(found.astype(np.float64) - exact.astype(np.float64))))


def _same(found: Array, exact: Array) -> bool:
    allowed = _PIXELS if np.issubdtype(exact.dtype, np.integer) else _EXACT * max(_scale(exact), 1e-30)
    return _distance(found, exact) <= allowed
