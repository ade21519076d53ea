"""What a CPU shows of an FP16 graph, and what converting it costs.

    python examples/half_precision.py model.mtl

Prints the largest differences from the FP32 graph on generated images: as ONNX Runtime runs the FP16 graph on a CPU, which rounds
only the weights, and with the rounding of activations written into the graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx

from mtl_deploy.calibration.data.synthetic import synthetic_images
from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.console.command import table

IMAGES = 32
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle with fp32.onnx and fp16.onnx, and uint8 input")
    bundle = open_bundle(parser.parse_args().bundle)
    size = bundle.manifest.signature.preprocessing
    names = [task.name for task in bundle.manifest.tasks]
    images = synthetic_images(IMAGES, size.height, size.width, seed=0)
    fp32, fp16 = (onnx.load(bundle.path / name) for name in ("fp32.onnx", "fp16.onnx"))

    reference, run_s = timed(lambda: run(fp32.SerializeToString(), images, names))
    statistics, observe_s = timed(lambda: observe(fp32, (images[i : i + 1] for i in range(IMAGES))))
    half, type_s = timed(lambda: to_half(fp32, statistics))
    as_it_runs = run(fp16.SerializeToString(), images, names)
    rounded = run(emulate_half(fp16).SerializeToString(), images, names)

    rows = [
        [
            name,
            f"{np.abs(reference[name]).max():.4g}",
            *(f"{difference(reference, other, name):.1e}" for other in (as_it_runs, rounded)),
        ]
        for name in names
    ]
    print(table(["task", "largest value", "weights rounded", "activations too"], rows))
    print(f"\n{half.description}")
    print(f"{IMAGES} images: running {run_s:.1f} s, observing {observe_s:.1f} s; typing {type_s:.1f} s")
    sizes = (Path(bundle.path / name).stat().st_size / 1e6 for name in ("fp32.onnx", "fp16.onnx"))
    print("fp32.onnx {:.1f} MB, fp16.onnx {:.1f} MB".format(*sizes))


def run(content: bytes, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    backend = OnnxRuntimeBackend(lambda: content, providers=["CPU"])
    parts = [backend.run({"image": images[i : i + 1]}, names) for i in range(len(images))]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def difference(reference: dict[str, np.ndarray], other: dict[str, np.ndarray], name: str) -> float:
    return float(np.abs(reference[name].astype(np.float64) - other[name]).max())


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


if __name__ == "__main__":
    main()
