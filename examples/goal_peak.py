"""How long this machine takes for a network's multiply-adds alone: INT8 convolutions of the size that suits it best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.backends.openvino.library import start as start_openvino

CHANNELS, LAYERS, LEVELS = 1024, 8, 256


class Peak:
    """A chain of 1x1 convolutions with as many multiply-adds as a network, and nothing else that takes time.

    They are matrix products of 1024 channels in OpenVINO's INT8: large enough to keep its kernels busy, small enough for the
    caches. A network's own layers are smaller, and it has others besides.

    Args:
        name: the contestant's name.
        multiply_adds: as many, to within 0.2 % for a ResNet-50's.
        threads: OpenVINO's; None: its own number.
    """

    def __init__(self, name: str, multiply_adds: int, threads: int | None) -> None:
        library = start_openvino()
        self.name, self.details = name, f"OpenVINO {library.version}, CPU"
        width = pixels(multiply_adds)
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        compiled = library.core.compile_model(chain(library.module, width), "CPU", settings)
        self._request = compiled.create_infer_request()
        self._image = np.random.default_rng(0).random((1, CHANNELS, 1, width), np.float32)

    def __call__(self, batch: Batch) -> Mapping[str, npt.NDArray[np.generic]]:  # noqa: ARG002 - no image makes it faster
        self._request.infer([self._image], share_inputs=True, share_outputs=True)
        return {}

    def close(self) -> None:
        del self._request


def pixels(multiply_adds: int) -> int:
    """Return how many pixels the chain needs for a number of multiply-adds."""
    return max(1, round(multiply_adds / (LAYERS * CHANNELS**2)))


def chain(module: Any, width: int) -> Any:
    """Return the chain for OpenVINO, for images one pixel high."""
    ops = module.opset8
    rng = np.random.default_rng(0)
    largest = np.float32(2.55)

    def in_eight_bits(value: Any) -> Any:
        return ops.fake_quantize(value, np.float32(0), largest, np.float32(0), largest, LEVELS)

    image = ops.parameter([1, CHANNELS, 1, width], np.float32)
    value = in_eight_bits(image)
    for _ in range(LAYERS):
        whole = rng.integers(-127, 128, (CHANNELS, CHANNELS, 1, 1)).astype(np.int8)
        steps = np.full((CHANNELS, 1, 1, 1), 1e-3, np.float32)
        weights = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(steps))
        value = in_eight_bits(ops.relu(ops.convolution(value, weights, [1, 1], [0, 0], [0, 0], [1, 1])))
    largest_of_all = ops.reduce_max(value, np.array([1, 3]), keep_dims=False)  # so that no large output is written
    return module.Model([largest_of_all], [image])


def start(spec: Spec) -> Peak:
    """Start it with the multiply-adds that the spec names."""
    return Peak(spec.name, int(spec.options["multiply_adds"]), spec.settings.threads)
