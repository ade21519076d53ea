"""A graph that is compiled for one shape of its images, or for all: infer requests in a pool, and arrays bound without copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array, TensorSpec
from mtl_deploy.runtime.errors import RunError

CLOSED = "the model is closed; load it again"
Shape = tuple[int, ...]


class CompiledGraph:
    """A compiled graph. Safe to call from several threads: each call has an infer request to itself.

    Args:
        module: ``openvino``.
        compiled: OpenVINO's compiled model.
        outputs: of the graph, in its order.
        shapes: returns the outputs' shapes for images of a shape.
        requests: infer requests at most; None: as many as OpenVINO calls the best number. Further calls wait.
    """

    def __init__(
        self,
        module: Any,
        compiled: Any,
        outputs: Sequence[TensorSpec],
        shapes: Callable[[Shape], Sequence[Shape]],
        requests: int | None,
    ) -> None:
        self._module = module
        self._compiled = compiled
        self._outputs = tuple(outputs)
        self._shapes = shapes
        self.best_requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._limit = max(requests or 1, self.best_requests)
        self._condition = threading.Condition()
        self._free: list[_Request] = []
        self._made = 0
        self._closed = False

    def run(self, image: Array, into: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; OpenVINO reads the image where it is, and writes every output to the caller's array or a new one.

        Raises:
            RunError: it is closed, or an array does not have its output's shape.
        """
        arrays: dict[str, Array] = {}
        for spec, shape in zip(self._outputs, self._shapes(image.shape), strict=True):
            array = into.get(spec.name)
            if array is None:
                array = np.empty(shape, spec.dtype)
            elif array.shape != shape or array.dtype != spec.dtype:
                raise RunError(f"{spec.name!r} is {spec.dtype} {shape}, and its buffer {array.dtype} {array.shape}")
            arrays[spec.name] = array
        request = self._acquire()
        try:
            request.run(self._module.Tensor, image, list(arrays.values()))
        finally:
            self._release(request)
        return arrays

    def close(self) -> None:
        """Let calls that wait fail. What is running ends as usual."""
        with self._condition:
            self._closed = True
            self._free.clear()
            self._condition.notify_all()

    def _acquire(self) -> _Request:
        with self._condition:
            while not self._free and self._made >= self._limit and not self._closed:
                self._condition.wait()
            if self._closed:
                raise RunError(CLOSED)
            if self._free:
                return self._free.pop()
            self._made += 1
        try:
            return _Request(self._compiled.create_infer_request(), len(self._outputs))
        except BaseException:
            with self._condition:
                self._made -= 1
                self._condition.notify()
            raise

    def _release(self, request: _Request) -> None:
        with self._condition:
            if not self._closed:
                self._free.append(request)
            self._condition.notify()


class _Request:
    """An infer request, for one call at a time. Between calls it holds its own memory, not the callers'."""

    def __init__(self, request: Any, outputs: int) -> None:
        self._request = request
        self._image = request.get_input_tensor()
        self._own = [request.get_output_tensor(number) for number in range(outputs)]

    def run(self, tensor: Callable[..., Any], image: Array, outputs: Sequence[Array]) -> None:
        request = self._request
        try:
            request.set_input_tensor(tensor(image, shared_memory=image.flags.writeable))  # it shares no read-only array
            for number, array in enumerate(outputs):
                request.set_output_tensor(number, tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
        finally:
            request.set_input_tensor(self._image)
            for number, own in enumerate(self._own):
                request.set_output_tensor(number, own)
