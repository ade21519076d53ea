"""INT8 for a processor, by this project's methods and by ONNX Runtime's own calibrators: error a task, time, memory.

    python examples/int8_methods.py model.mtl --images DIR

Half of the images calibrate, the others judge. Errors are those against the FP32 graph: of a regression
the mean difference, of classes the share of images that change class. Speed is that of one image,
as a multiple of FP32's; memory is the process's peak until the graph is made. Each method runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from mtl_deploy.calibration.histograms import collect
from mtl_deploy.calibration.images import batches, load_images
from mtl_deploy.calibration.observe import observe
from mtl_deploy.calibration.placement import place
from mtl_deploy.calibration.quantize import quantize
from mtl_deploy.calibration.ranges import METHODS, choose
from mtl_deploy.runtime.bundle import Bundle, open_bundle
from mtl_deploy.runtime.console import table
from mtl_deploy.runtime.onnxruntime_backend import OnnxRuntimeBackend

THEIRS = {
    "onnxruntime MinMax": CalibrationMethod.MinMax,
    "onnxruntime Percentile": CalibrationMethod.Percentile,
    "onnxruntime Entropy": CalibrationMethod.Entropy,
}
BATCH, ROUNDS, RUNS = 4, 3, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="with fp32.onnx")
    parser.add_argument("--images", type=Path, required=True, help="a folder or a list of images")
    parser.add_argument("--samples", type=int, default=256, metavar="N", help="images to use (default: 256)")
    parser.add_argument("--method", choices=["fp32", *METHODS, *THEIRS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        print(json.dumps(measure(open_bundle(arguments.bundle), arguments)))
        return
    rows = []
    command = [sys.executable, __file__, str(arguments.bundle), "--images", str(arguments.images)]
    command += ["--samples", str(arguments.samples)]
    for method in ["fp32", *METHODS, *THEIRS]:
        done = subprocess.run([*command, "--method", method], capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append({"method": method, "failed": f"exit code {done.returncode}"})
        else:
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "failed"))
    print(table(columns, [[str(row.get(name, row.get("failed", ""))) for name in columns] for row in rows]))


def measure(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, Any]:
    method = arguments.method
    preprocessing = bundle.manifest.signature.preprocessing
    pixels = load_images(arguments.images, preprocessing, samples=arguments.samples, seed=0).array
    model = onnx.load(bundle.path / "fp32.onnx")
    calibration, judging = (
        list(batches(pixels[::2], preprocessing, BATCH)),
        list(batches(pixels[1::2], preprocessing, 1)),
    )

    started = time.perf_counter()
    content = model.SerializeToString()
    if method in METHODS:
        content = ours(model, calibration, method).SerializeToString()
    elif method in THEIRS:
        content = theirs(model, calibration, THEIRS[method])
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # before anything is judged

    expected, found = run(model.SerializeToString(), judging), run(content, judging)
    row: dict[str, Any] = {"method": method}
    for task in bundle.manifest.tasks:
        one, other = expected[task.name], found[task.name]
        if task.kind == "regression":
            row[f"{task.name}, mean"] = f"{np.abs(one - other).mean():.3g}"
        else:
            classes = [values > 0.5 if values.shape[1] == 1 else values.argmax(axis=1) for values in (one, other)]
            row[f"{task.name}, changed"] = f"{np.mean(classes[0] != classes[1]):.2%}"
    row |= {"speed": f"{speed(model.SerializeToString(), content, judging[0]):.1f}", "calibration, s": f"{seconds:.1f}"}
    return row | {"memory, MB": f"{peak_mb:.0f}", "file, MB": f"{len(content) / 1e6:.1f}"}


def ours(model: onnx.ModelProto, calibration: list[Any], method: str) -> onnx.ModelProto:
    placement = place(model, "cpu")
    histograms = collect(model, placement.tensors, calibration, observe(model, calibration))
    ranges = {name: choose(one, method) for name, one in histograms.items()}
    return quantize(model, ranges, placement).model


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, calibration: list[Any]) -> None:
        self._batches: Iterator[Any] = iter(calibration)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def theirs(model: onnx.ModelProto, calibration: list[Any], method: CalibrationMethod) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(place(model, "cpu").kept),
            calibrate_method=method,
        )
        return target.read_bytes()


def run(content: bytes, judging: list[Any]) -> dict[str, np.ndarray]:
    backend = OnnxRuntimeBackend(lambda: content, providers=["CPU"])
    names = [spec.name for spec in backend.outputs]
    parts = [backend.run({"image": batch}, names) for batch in judging]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def speed(fp32: bytes, int8: bytes, image: Any) -> float:
    """How many times faster than FP32, one image at a time, in turns so that both meet the same load."""
    backends = [OnnxRuntimeBackend(lambda content=content: content, providers=["CPU"]) for content in (fp32, int8)]
    names = [spec.name for spec in backends[0].outputs]
    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for backend, times in zip(backends, taken, strict=True):
            for run_number in range(RUNS):  # some at a time: the other's threads go on spinning for a moment
                started = time.perf_counter()
                backend.run({"image": image}, names)
                if run_number >= RUNS // 3:
                    times.append(time.perf_counter() - started)
    return statistics.median(taken[0]) / statistics.median(taken[1])


if __name__ == "__main__":
    main()
