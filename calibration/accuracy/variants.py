"""A bundle's graphs at each precision, in a form whose numbers a CPU can compute."""

from __future__ import annotations

import onnx

from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.fp16.emulate_int8 import emulate_int8
from mtl_deploy.runtime.bundle.manifest import PRECISIONS, Artifact, Bundle
from mtl_deploy.runtime.errors import BundleError, OptionError


def shared_graphs(bundle: Bundle) -> dict[str, Artifact]:
    """Return by precision the graph of all tasks.

    Raises:
        BundleError: there is none.
    """
    found = {
        artifact.precision: artifact
        for artifact in bundle.manifest.artifacts
        if (artifact.role, artifact.backend) == ("shared", "onnxruntime")
    }
    if not found:
        raise BundleError(f"{bundle.path}: holds no graph of all tasks; export the network again")
    return {name: found[name] for name in (*PRECISIONS, *found) if name in found}


def runnable(bundle: Bundle, precision: str) -> bytes:
    """Return a graph that gives a precision's numbers on a CPU: FP16 with its rounding written out, INT8 in integers.

    Raises:
        OptionError: the bundle has no such graph.
        BundleError: a file is missing or damaged.
    """
    graphs = shared_graphs(bundle)
    if precision not in graphs:
        raise OptionError(f"{bundle.path}: has no {precision} graph; it has {', '.join(graphs)}")
    content = bundle.read(graphs[precision])
    if precision in ("fp32", "int8-cpu"):
        return content
    emulate = emulate_int8 if precision == "int8" else emulate_half
    emulated: bytes = emulate(onnx.load_from_string(content)).SerializeToString()  # computed in FP32 otherwise
    return emulated


def only_batch(bundle: Bundle, precision: str) -> int | None:
    """Return the only batch size that a graph accepts; None: any."""
    artifact = shared_graphs(bundle)[precision]
    return artifact.batch_min if artifact.batch_min == artifact.batch_max else None
