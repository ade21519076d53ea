"""Checking that a bundle's graph can be processed and quantized, before any work is done on it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.backends.specs import check_specs
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.errors import BundleError, RunError
from mtl_deploy.runtime.files.reading import describe
from mtl_deploy.runtime.signals import handlers_error


def check_graph(content: bytes, signature: Signature, where: str, *, threads: int | None = None) -> None:
    """Check that ONNX's own tools accept a graph, that ONNX Runtime runs it, and that it computes what the bundle says.

    Args:
        content: an ``.onnx`` file.
        signature: the bundle's.
        where: name of the file in errors.
        threads: of ONNX Runtime.

    Raises:
        BundleError: it is damaged, not a graph, or not the graph that its bundle describes.
    """
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        ir.to_proto(ir.from_proto(model))
        for tensor in model.graph.initializer:
            onnx.numpy_helper.to_array(tensor)
    except (DecodeError, onnx.checker.ValidationError, ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        if (raised := handlers_error(error)) is not None:
            raise raised from raised.__cause__
        raise BundleError(
            f"{where}: a damaged graph ({describe(error)[:200]}); copy the bundle again, or export again"
        ) from error
    with closing(OnnxRuntimeBackend(lambda: content, where=where, providers=["CPU"], threads=threads)) as backend:
        check_specs(backend, signature, where)
        spec = backend.inputs[0]
        shape = (spec.shape[0] or 1, *signature.preprocessing.input_shape)
        try:
            found = backend.run({INPUT_NAME: np.zeros(shape, spec.dtype)}, [one.name for one in backend.outputs])
        except RunError as error:
            raise BundleError(f"{where}: {error}; export again") from error
    for name, output in found.items():
        if output.shape != (expected := (shape[0], *signature.sample_shape(name))):
            raise BundleError(
                f"{where}: {name!r} has shape {output.shape} for one batch, but its tasks say {expected}; export again"
            )
