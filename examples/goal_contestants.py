"""The contestants of goals.py: what the runtime chooses, both libraries alone, NNCF's INT8, PyTorch; each in its own process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.contestants.forms import Side
from mtl_deploy.bench.contestants.pair import Batch, Settings
from mtl_deploy.bench.contestants.peers.openvino import OpenVino
from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime import load
from mtl_deploy.runtime.backends.openvino.library import start as start_openvino
from mtl_deploy.runtime.bundle.manifest import open_bundle

INT8, NNCF, FP32, ONNX_RUNTIME, OPENVINO, EAGER = "int8", "nncf", "fp32", "onnxruntime", "openvino", "eager"
PEAK = "peak"
TITLES = {
    INT8: "ours, INT8",
    NNCF: "OpenVINO, NNCF's INT8",
    FP32: "ours, FP32",
    ONNX_RUNTIME: "ONNX Runtime, FP32",
    OPENVINO: "OpenVINO, FP32",
    EAGER: "PyTorch's forward, eager",
    PEAK: "its multiply-adds alone, INT8",
}


def specs(bundle: Path, nncf: Path, checkpoint: Path | None, threads: int | None) -> dict[str, Spec]:
    """Return the contestants of a bundle by name.

    Args:
        bundle: its folder.
        nncf: NNCF's network, as OpenVINO's ``.xml``.
        checkpoint: what PyTorch's forward is measured of; None: it is not measured.
        threads: of each contestant; None: each library's own number.
    """
    opened = open_bundle(bundle)
    tasks = tuple(task.name for task in opened.manifest.tasks)
    settings = Settings(threads=threads, spinning=True)  # as load() and ONNX Runtime do by themselves

    work = next(one.multiply_adds for one in opened.manifest.artifacts if (one.role, one.precision) == ("shared", FP32))

    def spec(name: str, starter: str, precision: str) -> Spec:
        options = {"nncf": str(nncf), "multiply_adds": work}
        place = starter if ":" in starter else f"goal_contestants:{starter}"
        return Spec(name, TITLES[name], name, bundle, (), tasks, precision, settings, place, options)

    found = {
        INT8: spec(INT8, "start_ours", "int8"),
        NNCF: spec(NNCF, "start_nncf", "int8"),
        FP32: spec(FP32, "start_ours", "fp32"),
        ONNX_RUNTIME: spec(ONNX_RUNTIME, "start_onnx_runtime", "fp32"),
        OPENVINO: spec(OPENVINO, "start_openvino_fp32", "fp32"),
    }
    if checkpoint is not None:
        found[EAGER] = baseline_specs(opened, checkpoint, None, False, settings)[0]
        found[PEAK] = spec(PEAK, "goal_peak:start", "int8")
    return found


def start_ours(spec: Spec) -> Side:
    """Load the bundle as an application does: the runtime chooses the graph and the backend."""
    model = load(spec.path, precision=spec.precision, threads=spec.settings.threads, spinning=spec.settings.spinning)
    return Side(spec.name, [model])


def start_nncf(spec: Spec) -> OpenVino:
    """Load what NNCF made."""
    return _openvino(spec, Path(spec.options["nncf"]))


def start_openvino_fp32(spec: Spec) -> OpenVino:
    """Load the FP32 graph in OpenVINO, without the runtime."""
    return _openvino(spec, spec.path / "fp32.onnx")


def _openvino(spec: Spec, path: Path) -> OpenVino:
    library = start_openvino()
    content: object = path.read_bytes() if path.suffix == ".onnx" else path  # weights lie beside an .xml
    return OpenVino(spec.name, library.core, content, str(path), spec.tasks, spec.settings, library.version)


class Bare:
    """The FP32 graph in ONNX Runtime, without the runtime."""

    def __init__(self, spec: Spec) -> None:
        import onnxruntime

        self.name, self.details, self._tasks = spec.name, f"ONNX Runtime {onnxruntime.__version__}", list(spec.tasks)
        options = onnxruntime.SessionOptions()
        if spec.settings.threads is not None:
            options.intra_op_num_threads = spec.settings.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spec.settings.spinning)))
        self._session = onnxruntime.InferenceSession(
            str(spec.path / "fp32.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Batch) -> Mapping[str, npt.NDArray[np.generic]]:
        return dict(zip(self._tasks, self._session.run(self._tasks, {self._input: batch}), strict=True))

    def close(self) -> None:
        del self._session


def start_onnx_runtime(spec: Spec) -> Bare:
    """Load the FP32 graph in ONNX Runtime."""
    return Bare(spec)
