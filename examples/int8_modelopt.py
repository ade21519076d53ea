"""NVIDIA's ModelOpt on a bundle's fp32.onnx, to compare with int8_methods.py. Run it where ModelOpt is installed:

python -m venv modelopt && modelopt/bin/pip install 'nvidia-modelopt[onnx]'
modelopt/bin/python examples/int8_modelopt.py model.mtl --images DIR --samples 32
"""

from __future__ import annotations

import argparse
import resource
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=32)
    arguments = parser.parse_args()
    source = arguments.bundle / "fp32.onnx"
    height, width = (dim.dim_value for dim in onnx.load(source).graph.input[0].type.tensor_type.shape.dim[1:3])
    files = sorted(arguments.images.rglob("*.png")) + sorted(arguments.images.rglob("*.jpg"))
    files = files[: 2 * arguments.samples]
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB").resize((width, height))) for file in files])
    calibrating, judged = pictures[: arguments.samples], pictures[arguments.samples :]
    expected = run(source, judged)
    for method in ("max", "entropy"):
        seconds, content = quantized(source, calibrating, method)
        found = run(content, judged)
        errors = {name: float(np.mean(np.abs(found[name] - values))) for name, values in expected.items()}
        kinds = [node.op_type for node in onnx.load(content).graph.node]
        shown = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
        print(f"ModelOpt {method}: {seconds:.1f} s, {kinds.count('QuantizeLinear')} Q, mean error: {shown}")
    site = Path(sysconfig.get_path("purelib"))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 1e9
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB; installed {size:.1f} GB")


def quantized(source: Path, images: np.ndarray, method: str) -> tuple[float, Path]:
    from modelopt.onnx.quantization import quantize

    target = Path(tempfile.mkdtemp()) / "int8.onnx"
    started = time.perf_counter()
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_data=images,
        calibration_method=method,
        calibration_eps=["cpu"],
        output_path=str(target),
        high_precision_dtype="fp32",
    )
    return time.perf_counter() - started, target


def run(graph: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


if __name__ == "__main__":
    main()
