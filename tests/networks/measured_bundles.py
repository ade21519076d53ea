"""A small bundle with real graphs in FP32, FP16 and both styles of INT8, and measurements of it that say what a test needs.

The graphs are an earlier release's, made with ``mtl-calibrate``; times in a file of measurements are what readers take from it.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, open_bundle
from mtl_deploy.runtime.measured.here import libraries, processor
from mtl_deploy.runtime.measured.record import Candidate, Run, packed

_ARCHIVE = Path(__file__).parents[1] / "runtime" / "bundle" / "earlier_int8.zip"
_NOISE = (1.0, 1.004, 0.997, 1.002, 0.999, 1.006, 0.996, 1.001, 1.003, 0.998)
Times = Mapping[tuple[str, str], float]
USUAL: Times = {
    ("fp32.onnx", "onnxruntime"): 4.4,
    ("fp32.onnx", "openvino"): 4.3,
    ("int8-cpu.onnx", "onnxruntime"): 5.0,
    ("int8-cpu.onnx", "openvino"): 2.15,
    ("int8.onnx", "onnxruntime"): 9.0,
    ("int8.onnx", "openvino"): 1.8,
}
"""Milliseconds by graph and backend, like those of MobileNetV3: INT8 pays on OpenVINO alone, and there in TensorRT's style."""


def int8_bundle(folder: Path) -> Path:
    """Unpack the bundle into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(_ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def run_of(bundle: Path, times: Times = USUAL, **changes: object) -> Run:
    """Return a measurement on this machine, or with ``changes`` on another; rounds differ by less than a percent."""
    graphs = {artifact.path: artifact for artifact in open_bundle(bundle).manifest.artifacts}
    candidates = tuple(
        Candidate(path, graphs[path].sha256, graphs[path].precision, backend, tuple(ms * noise for noise in _NOISE))
        for (path, backend), ms in times.items()
    )
    made = Run(processor(), libraries(), None, 1, "2026-11-26T12:00:00+00:00", candidates)
    return replace(made, **changes)  # type: ignore[arg-type]


def write_measured(bundle: Path, *runs: Run) -> Path:
    """Write a bundle's file of measurements."""
    file = bundle / MEASURED_FILE
    file.write_bytes(packed(runs))
    return file
