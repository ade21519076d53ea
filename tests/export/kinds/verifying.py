"""Verifying a graph that a test has changed against a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
import onnx

from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.export.verification.expected import Forward, run_network
from mtl_deploy.export.verification.verify import require_passed, verify, with_logits
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.verification import Row

EDGE = 64


def verified(graph: onnx.ModelProto, signature: Signature, forward: Forward, images: int = 16) -> Sequence[Row]:
    """Return the rows of a graph that matches.

    Raises:
        VerificationError: it does not.
    """
    pixels = np.random.default_rng(2).integers(0, 256, (images, EDGE, EDGE, 3), dtype=np.uint8)
    pixels[:, ::2] //= np.arange(1, images + 1, dtype=np.uint8)[:, None, None, None]  # no two are alike in brightness
    expected = run_network(forward, signature, pixels, None)
    with closing(FrugalBackend(with_logits(graph.SerializeToString(), signature), threads=1)) as backend:
        rows = verify("x.onnx", backend, signature, [(pixels, expected)], tolerance=1e-4, batch=None)
    require_passed(rows)
    return rows


def node_called(graph: onnx.ModelProto, names: str) -> onnx.NodeProto:
    """Return the node of this name."""
    return next(node for node in graph.graph.node if node.name == names)


def constants(graph: onnx.ModelProto) -> Mapping[str, onnx.TensorProto]:
    """Return initializers by name."""
    return {tensor.name: tensor for tensor in graph.graph.initializer}
