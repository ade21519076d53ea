"""INT8 for CPUs, by this project's methods and by ONNX Runtime's own calibrators: error per task, time and memory.

    python examples/int8_methods.py model.mtl --images DIR

Each seed draws images; half of them are for calibration, the others for measuring. Errors are against the FP32 graph: the root mean
squared error (for classes, of the logits) and the share of images that change class. Only ranges are compared: both have the same
layers in INT8, and no mean is corrected. A second table shows how much further from FP32 each method is than ONNX Runtime's method
of the same name, with a 95 % interval (paired bootstrap of the images within each seed); the exit code is 1 if an interval lies
above zero. ``mse`` has no counterpart. Speed is for one image on one core, as a multiple of FP32's; memory is the process's peak
until the first graph is made; times are CPU times. Each method runs in a separate process.
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

from mtl_deploy.calibration.data.images import batches, load_images
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import quantize
from mtl_deploy.calibration.observe.histograms import collect
from mtl_deploy.calibration.observe.ranges import METHODS, choose
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.console.command import table

THEIRS = {
    "onnxruntime MinMax": CalibrationMethod.MinMax,
    "onnxruntime Percentile": CalibrationMethod.Percentile,
    "onnxruntime Entropy": CalibrationMethod.Entropy,
}
NAMESAKES = {"minmax": "onnxruntime MinMax", "percentile": "onnxruntime Percentile", "entropy": "onnxruntime Entropy"}
BATCH, ROUNDS, RUNS, RESAMPLES = 4, 3, 12, 4000
Squares = dict[str, list[list[float]]]  # by task and seed, the mean squared error of each image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle with fp32.onnx")
    parser.add_argument("--images", type=Path, required=True, help="a folder or a list of images")
    parser.add_argument("--samples", type=int, default=256, metavar="N", help="images per seed (default: 256)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how often images are drawn (default: 3)")
    parser.add_argument("--method", choices=["fp32", *METHODS, *THEIRS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        print(json.dumps(measure(open_bundle(arguments.bundle), arguments)))
        return 0
    rows: list[dict[str, Any]] = []
    squares: dict[str, Squares] = {}
    command = [sys.executable, __file__, str(arguments.bundle), "--images", str(arguments.images)]
    command += ["--samples", str(arguments.samples), "--seeds", str(arguments.seeds)]
    for method in ["fp32", *METHODS, *THEIRS]:
        done = subprocess.run([*command, "--method", method], capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append({"method": method, "failed": f"exit code {done.returncode}"})
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            squares[method] = found.pop("squares")
            rows.append(found)
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "failed"))
    print(table(columns, [[str(row.get(name, row.get("failed", ""))) for name in columns] for row in rows]))
    compared, worse = beside_namesakes(squares)
    print(f"\nDifference in error from ONNX Runtime's method of the same name, 95 % interval:\n{compared}")
    print("none is worse" if not worse else f"worse: {', '.join(worse)}")
    return 1 if worse else 0


def beside_namesakes(squares: dict[str, Squares]) -> tuple[str, list[str]]:
    """Return a table of the differences, and the methods and tasks that are worse."""
    rows, worse = [], []
    for method, other in NAMESAKES.items():
        if method not in squares or other not in squares:
            continue
        cells = []
        for task, own in squares[method].items():
            low, high = difference(own, squares[other][task])
            cells.append(f"{low:+.2g} to {high:+.2g}")
            worse += [f"{method}, {task}"] if low > 0 else []
        rows.append([method, *cells])
    tasks = next(iter(squares.values()), {})
    return table(["method", *tasks], rows), worse


def difference(one: list[list[float]], other: list[list[float]]) -> tuple[float, float]:
    """Return the 95 % interval of the first error minus the second, by bootstrap of the images that both were run on."""
    random = np.random.default_rng(0)
    sums = np.zeros((2, RESAMPLES))
    for first, second in zip(one, other, strict=True):
        chosen = random.integers(0, len(first), (RESAMPLES, len(first)))
        sums += np.array([first, second])[:, chosen].mean(axis=2)
    roots = np.sqrt(sums / len(one))
    low, high = np.quantile(roots[0] - roots[1], [0.025, 0.975])
    return float(low), float(high)


def measure(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, Any]:
    method = arguments.method
    preprocessing = bundle.manifest.signature.preprocessing
    tasks = [task for task in bundle.manifest.tasks if not task.dense]
    model, judged = with_logits(onnx.load(bundle.path / "fp32.onnx"), [task.name for task in tasks])
    squares: Squares = {task.name: [] for task in tasks}
    changed: dict[str, list[float]] = {task.name: [] for task in tasks if task.kind != "regression"}
    costs: dict[str, Any] = {}
    for seed in range(arguments.seeds):
        pixels = load_images(arguments.images, preprocessing, samples=arguments.samples, seed=seed).array
        calibration, judging = (
            list(batches(pixels[::2], preprocessing, BATCH)),
            list(batches(pixels[1::2], preprocessing, BATCH)),
        )
        started = time.process_time()
        content = model.SerializeToString()
        if method in METHODS:
            content = ours(model, calibration, method).SerializeToString()
        elif method in THEIRS:
            content = theirs(model, calibration, THEIRS[method])
        if not costs:  # before anything is measured
            seconds, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            faster = speed(model.SerializeToString(), content, judging[0][:1])
            costs = {"speed": f"{faster:.1f}", "calibration, CPU s": f"{seconds:.1f}", "memory, MB": f"{peak:.0f}"}
            costs["file, MB"] = f"{len(content) / 1e6:.1f}"
        expected, found = run(model.SerializeToString(), judging), run(content, judging)
        for task in tasks:
            one, other = (values[judged[task.name]].reshape(len(values[task.name]), -1) for values in (expected, found))
            squares[task.name].append(np.square(one.astype(np.float64) - other).mean(axis=1).tolist())
            if task.name in changed:
                classes = [values > 0 if values.shape[1] == 1 else values.argmax(axis=1) for values in (one, other)]
                changed[task.name].append(float(np.mean(classes[0] != classes[1])))
    row: dict[str, Any] = {"method": method}
    for task in tasks:
        row[task.name] = f"{np.sqrt(np.mean(squares[task.name])):.3g}"
        if task.name in changed:
            row[f"{task.name}, changed"] = f"{np.mean(changed[task.name]):.2%}"
    return row | costs | {"squares": squares}


def with_logits(model: onnx.ModelProto, tasks: list[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Add the inputs of the last Softmax and Sigmoid to a graph's outputs; return it, and by task the output to compare."""
    producers = {name: node for node in model.graph.node for name in node.output}
    judged = {}
    for task in tasks:
        node = producers[task]
        judged[task] = node.input[0] if node.op_type in ("Sigmoid", "Softmax") else task
        if judged[task] not in {output.name for output in model.graph.output}:
            model.graph.output.append(onnx.helper.make_tensor_value_info(judged[task], onnx.TensorProto.FLOAT, None))
    return model, judged


def ours(model: onnx.ModelProto, calibration: list[Any], method: str) -> onnx.ModelProto:
    placement = place(model, "cpu")
    histograms = collect(model, placement.tensors, calibration, observe(model, calibration))
    ranges = {name: choose(one, method, symmetric=False) for name, one in histograms.items()}
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
            nodes_to_exclude=kept(model),
            calibrate_method=method,
        )
        return target.read_bytes()


def kept(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that stay in FP32, and of all nodes that read only their outputs: decoding."""
    names = set(place(model, "cpu").kept)
    exact = {initializer.name for initializer in model.graph.initializer}
    for node in model.graph.node:
        if node.name in names or all(name in exact for name in node.input):
            names.add(node.name)
            exact.update(node.output)
    return sorted(names)


def run(content: bytes, judging: list[Any]) -> dict[str, np.ndarray]:
    backend = OnnxRuntimeBackend(lambda: content, providers=["CPU"])
    names = [spec.name for spec in backend.outputs]
    parts = [backend.run({"image": batch}, names) for batch in judging]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def speed(fp32: bytes, int8: bytes, image: Any) -> float:
    """Return how many times faster than FP32 it is, one image at a time on one core, by CPU time, in turns."""
    backends = [
        OnnxRuntimeBackend(lambda content=content: content, providers=["CPU"], threads=1) for content in (fp32, int8)
    ]
    names = [spec.name for spec in backends[0].outputs]
    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for backend, times in zip(backends, taken, strict=True):
            for run_number in range(RUNS):  # several in a row: the other's threads go on spinning for a moment
                started = time.process_time()
                backend.run({"image": image}, names)
                if run_number >= RUNS // 3:
                    times.append(time.process_time() - started)
    return statistics.median(taken[0]) / statistics.median(taken[1])


if __name__ == "__main__":
    sys.exit(main())
