"""Graphs with free sizes: naming the free dimensions, and making the same graph for one size, to count its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import TraceError

from .pads import settle_pools

if TYPE_CHECKING:
    import onnx_ir as ir


def name_free_sizes(model: ir.Model, height: str, width: str) -> None:
    """Give a traced graph's free height and width these names, wherever the exporter wrote their expressions, in place.

    Raises:
        TraceError: one of them is not free in the graph.
    """
    import onnx_ir as ir

    shape = model.graph.inputs[0].shape
    assert shape is not None  # the tracer sets it
    found = [str(size) for size in shape[2:] if not isinstance(size, int)]
    if len(found) < 2:
        raise TraceError(
            f"the network fixes its image size ({shape}), so --dynamic-size cannot free it; leave the option out, or let the "
            "network's forward take sizes from its inputs"
        )
    names = {found[0]: height, found[1]: width}
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([names.get(str(size), size) for size in value.shape])


def at_size(model: ir.Model, size: tuple[int, int] | None = None) -> ir.Model:
    """Return a copy of a graph for one size, with every shape in it known; weights are shared in memory.

    A free batch becomes one image. If a network moves its batch to another axis or merges it into one (a Vision Transformer does
    both), the exporter's own shapes are not enough to count the work.

    Args:
        model: takes ``(N, C, H, W)`` or ``(N, H, W, C)``; any of these sizes but C may be free.
        size: height and width in pixels, the graph's own where they are fixed; None: the graph's own.
    """
    import onnx_ir as ir
    import onnxscript.optimizer

    fixed = model.clone()
    assert isinstance(fixed, ir.Model)  # what clone returns
    image = fixed.graph.inputs[0]
    old = model.graph.inputs[0].shape
    assert old is not None  # the tracer sets it
    batch = old[0] if isinstance(old[0], int) else 1
    image.shape = ir.Shape([batch, *old[1:]])
    if size is not None:
        last = not isinstance(old[1], int) or tuple(old[1:3]) == size  # the channels, which are never free
        image.shape = ir.Shape([batch, *size, old[3]] if last else [batch, old[1], *size])
    infer_anew(fixed)
    onnxscript.optimizer.fold_constants(fixed)
    _infer(fixed)
    return fixed


def fix_size(model: ir.Model, height: int, width: int) -> None:
    """Fix the size of a traced graph that takes any size, in place; its batch stays as it is."""
    import onnx_ir as ir
    import onnxscript.optimizer

    image = model.graph.inputs[0]
    assert image.shape is not None  # the tracer sets it
    image.shape = ir.Shape([image.shape[0], image.shape[1], height, width])
    infer_anew(model)
    onnxscript.optimizer.fold_constants(model)
    _infer(model)


def infer_anew(model: ir.Model) -> None:
    """Replace every shape by what follows from that of the input, in place, with poolings settled first."""
    _forget(model)
    _infer(model)


def _infer(model: ir.Model) -> None:
    import onnx_ir.passes.common as common

    common.ShapeInferencePass()(model)
    while settle_pools(model, most=1):  # what lies behind it was inferred from a shape that it does not have
        _forget(model)
        common.ShapeInferencePass()(model)


def _forget(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
