"""A given graph in float64: the ONNX reference evaluator, with PyTorch's kernels for what it computes slowly.

ONNX Runtime has no double kernels for convolutions. The evaluator (https://onnx.ai/onnx/api/reference.html) follows ONNX's text,
node by node, in NumPy; its convolutions and poolings are correct and slow, so these run in PyTorch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch.nn import functional

from .retyped import DOUBLED, retyped

Array = npt.NDArray[Any]
_DEFAULT = ("", "NOTSET", "VALID", None)


class TooSlowError(Exception):
    """The graph takes longer than it may."""


class Float64:
    """Runs a graph in float64.

    Args:
        model: with float32 or FP16 weights, each of which float64 holds exactly.
        outputs: names of those wanted.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str]) -> None:
        doubled = retyped(model, DOUBLED)
        self._outputs = tuple(outputs)
        self._evaluator = ReferenceEvaluator(doubled, new_ops=[Conv, ConvTranspose, MaxPool, AveragePool])
        self._end = 0.0
        self._watch(self._evaluator)
        nodes = self._evaluator.rt_nodes_ or []
        self._last: dict[str, int] = {name: place for place, node in enumerate(nodes) for name in node.input}
        self._whole = any(node.need_context() for node in nodes)  # graphs inside nodes read what lies outside them

    def run(self, name: str, image: Array, seconds: float) -> list[Array]:
        """Run once.

        Args:
            name: of the input.
            image: a batch, as the graph takes it.
            seconds: that it may take, checked between nodes and between the rounds of a loop.

        Raises:
            TooSlowError: it takes longer.
        """
        self._end = time.monotonic() + seconds
        values: dict[str, Any] = {"": None, **self._evaluator.rt_inits_, name: image}
        for place, node in enumerate(self._evaluator.rt_nodes_ or []):
            self._check()
            inputs = [values[each] for each in node.input]
            found = node.run(*inputs, context=values) if node.need_context() else node.run(*inputs)
            values.update(zip(node.output, found, strict=False))
            if not self._whole:
                for each in node.input:
                    if self._last[each] == place and each not in self._outputs:
                        values.pop(each, None)
            values[""] = None  # an output that a node leaves out is written there
        return [np.asarray(values[each]) for each in self._outputs]

    def _check(self) -> None:
        if time.monotonic() > self._end:
            raise TooSlowError

    def _watch(self, evaluator: ReferenceEvaluator) -> None:
        """Let graphs in nodes check the time whenever they begin, as the body of a loop does at every round."""
        for node in evaluator.rt_nodes_ or []:
            for inner in vars(node).values():
                if isinstance(inner, ReferenceEvaluator):
                    self._watch(inner)
                    vars(inner)["run"] = self._timed(inner.run)

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*inputs: Any, **options: Any) -> Any:
            self._check()
            return run(*inputs, **options)

        return timed


class Conv(OpRun):
    """A convolution, in PyTorch."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        auto_pad: str | None = None,
        dilations: Sequence[int] | None = None,
        group: int | None = None,
        kernel_shape: Sequence[int] | None = None,  # noqa: ARG002 - the weight says it
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        window = _window(weight.shape[2:], strides, dilations)
        padded = _padded(_tensor(x), _pads(auto_pad, pads, x.shape[2:], window), 0.0)
        convolve: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[x.ndim - 2]
        added = None if bias is None else _tensor(bias)
        return (convolve(padded, _tensor(weight), added, window.steps, 0, window.gaps, group or 1).numpy(),)


class ConvTranspose(OpRun):
    """A transposed convolution, in PyTorch: computed without padding, then cut."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        auto_pad: str | None = None,
        dilations: Sequence[int] | None = None,
        group: int | None = None,
        kernel_shape: Sequence[int] | None = None,  # noqa: ARG002 - the weight says it
        output_padding: Sequence[int] | None = None,
        output_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        if auto_pad not in _DEFAULT or output_shape is not None or x.ndim != 4:
            raise NotImplementedError("ConvTranspose with auto_pad or output_shape")
        window, more = _window(weight.shape[2:], strides, dilations), list(output_padding or [0, 0])
        top, left, bottom, right = pads or [0, 0, 0, 0]
        found = functional.conv_transpose2d(
            _tensor(x), _tensor(weight), None, window.steps, 0, 0, group or 1, window.gaps
        )
        whole = functional.pad(found, (-left, more[1] - right, -top, more[0] - bottom))
        return ((whole if bias is None else whole + _tensor(bias).view(1, -1, 1, 1)).numpy(),)


class MaxPool(OpRun):
    """A maximum pooling, in PyTorch."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        dilations: Sequence[int] | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        storage_order: int | None = None,  # noqa: ARG002 - of indices, which are not computed
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        if x.ndim != 4 or kernel_shape is None or len(self.output) > 1:
            raise NotImplementedError("MaxPool of other than images, or with indices")
        window = _window(kernel_shape, strides, dilations)
        _require_known(auto_pad, kernel_shape, window)
        around = _pads(auto_pad, pads, x.shape[2:], window)
        if ceil_mode and auto_pad in _DEFAULT:
            around = _to_ceiling(around, x.shape[2:], window)
        padded = _padded(_tensor(x), around, -np.inf)
        return (functional.max_pool2d(padded, list(kernel_shape), window.steps, 0, window.gaps).numpy(),)


class AveragePool(OpRun):
    """An average pooling, in PyTorch: sums divided by how many values lie under the kernel."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        count_include_pad: int | None = None,
        dilations: Sequence[int] | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        if x.ndim != 4 or kernel_shape is None or any(gap != 1 for gap in dilations or []):
            raise NotImplementedError("AveragePool of other than images, or dilated")
        window = _window(kernel_shape, strides, None)
        _require_known(auto_pad, kernel_shape, window)
        around = _pads(auto_pad, pads, x.shape[2:], window)
        whole = _to_ceiling(around, x.shape[2:], window) if ceil_mode and auto_pad in _DEFAULT else around
        images = _tensor(x)
        counted = _padded(torch.ones_like(images[:1, :1]), around, 1.0 if count_include_pad else 0.0)
        counted = _padded(counted, [more - less for more, less in zip(whole, around, strict=True)], 0.0)
        sums, counts = (
            functional.avg_pool2d(each, list(kernel_shape), window.steps)
            for each in (_padded(images, whole, 0.0), counted)
        )
        return ((sums / counts).numpy(),)


class _Window(NamedTuple):
    """What slides over an image: by how many pixels, how far apart its values lie, and how many pixels it covers, per side."""

    steps: list[int]
    gaps: list[int]
    reach: list[int]


def _window(kernel: Sequence[int], strides: Sequence[int] | None, dilations: Sequence[int] | None) -> _Window:
    steps, gaps = list(strides or [1] * len(kernel)), list(dilations or [1] * len(kernel))
    return _Window(steps, gaps, [(size - 1) * gap + 1 for size, gap in zip(kernel, gaps, strict=True)])


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def _pads(auto: str | None, pads: Sequence[int] | None, sizes: Sequence[int], window: _Window) -> list[int]:
    """Return what lies around an image: before each side, then after each."""
    if auto in _DEFAULT:
        return list(pads or [0] * (2 * len(sizes)))
    before, after = [], []
    for size, kernel, step in zip(sizes, window.reach, window.steps, strict=True):
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before + after


def _require_known(auto: str | None, kernel: Sequence[int], window: _Window) -> None:
    """Refuse poolings for which runtimes do not agree on what ``auto_pad`` means.

    For SAME_UPPER and SAME_LOWER, ONNX Runtime takes the pads of the kernel without its gaps, and negative pads where steps are
    larger than the kernel: https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/providers/cpu/nn/pool_attributes.h
    """
    if auto not in _DEFAULT and any(
        gap != 1 or step > size for gap, step, size in zip(window.gaps, window.steps, kernel, strict=True)
    ):
        raise NotImplementedError("a pooling with auto_pad, and with gaps or with steps larger than its kernel")


def _to_ceiling(around: Sequence[int], sizes: Sequence[int], window: _Window) -> list[int]:
    """Pad the ends so that a last, incomplete window counts, if it begins inside the image or before it."""
    count = len(sizes)
    grown = list(around)
    for side, (size, kernel, step) in enumerate(zip(sizes, window.reach, window.steps, strict=True)):
        whole = size + around[side] + around[side + count]
        windows = -(-(whole - kernel) // step) + 1
        if (windows - 1) * step >= size + around[side]:
            windows -= 1
        grown[side + count] += max((windows - 1) * step + kernel - whole, 0)
    return grown


def _padded(images: torch.Tensor, around: Sequence[int], value: float) -> torch.Tensor:
    count = len(around) // 2
    pairs = [(around[side], around[side + count]) for side in reversed(range(count))]
    if not any(around):
        return images
    return functional.pad(images, [each for pair in pairs for each in pair], value=value)
