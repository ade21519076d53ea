"""One execution context of an engine, with its stream, its memory and the graphs recorded on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.cuda.arrays import DeviceView
from mtl_deploy.runtime.cuda.driver import (
    ALIGNMENT,
    CudaGraph,
    DeviceMemory,
    Event,
    Stream,
    copy_on_device,
    copy_to_device,
    copy_to_host,
    synchronize,
)
from mtl_deploy.runtime.errors import DeviceLostError, RunError

from .engine import LoadedEngine
from .memory import Binding, BufferLayout, Buffers, Shape
from .split.loaded import LoadedParts

_Resource = TypeVar("_Resource")
_SEEN = 64  # bindings that are remembered as used once


class _Recorded(NamedTuple):
    """A graph, and the execution context that it was captured from.

    That context serves nothing else: once another shape is set, its graph may compute nonsense. NVIDIA advises one context per
    graph, all sharing their activation memory (Developer Guide, "CUDA Graphs").
    """

    graph: CudaGraph
    execution: Any


class Lane:
    """An execution context for one thread at a time. Its CUDA context is current whenever a method is called.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library returns no context.
    """

    def __init__(self, loaded: LoadedEngine | LoadedParts) -> None:
        self._loaded = loaded
        self.graphs_off: str | None = None if loaded.graphs else "turned off"
        """Why no graph is recorded; None where they are."""
        self._graphs: OrderedDict[Binding, _Recorded] = OrderedDict()
        self._seen: OrderedDict[Binding, None] = OrderedDict()
        self._bound: Binding | None = None
        self._pending: int | None = None  # a caller's stream whose work still uses this lane
        self._execution: Any = None
        self._uncaptured: Any = None  # an execution context that could not be captured, and whose work may still run
        self._closers: list[Any] = []
        try:
            self._buffers = self._keep(
                Buffers(loaded.input, loaded.outputs, loaded.context, self._output_shapes, loaded.inner)
            )
            self.stream = self._keep(Stream())
            self._done = self._keep(Event())
            self._arrived = self._keep(Event())
            self._activations = self._keep(DeviceMemory(loaded.activation_bytes))
            self._execution = self._loaded.make_execution(self._activations)
        except BaseException:
            self.close()
            raise

    def _keep(self, resource: _Resource) -> _Resource:
        self._closers.append(resource)
        return resource

    # one call

    def run(
        self,
        image: DeviceView | Array,
        targets: Mapping[str, DeviceView],
        names: Sequence[str],
        into: Mapping[str, Array],
        *,
        pinned: bool = False,
        stream: int | None = None,
    ) -> dict[str, Array]:
        """Run once.

        Args:
            image: the input, on the device or the host. A host array is copied to pinned memory first, unless it is ``pinned``.
            targets: device memory to write outputs to, by name.
            names: outputs to copy to host memory.
            into: arrays for those, by name.
            pinned: whether a host ``image`` lies in pinned memory.
            stream: the caller's; None: the lane's own, which the call waits for. With a caller's stream, only a call that copies
                outputs to host memory waits.
        """
        on_device = isinstance(image, DeviceView)
        on = self.stream.handle if stream is None else stream
        self._begin(image.shape, on, staging=not (on_device or pinned))
        layout = self._buffers.layout(image.shape)
        binding = layout.binding
        try:
            if isinstance(image, DeviceView):
                binding = binding._replace(host_input=0, device_input=self._device_input(image, binding, on))
            elif pinned:
                binding = binding._replace(host_input=image.ctypes.data)
            else:
                layout.staging[...] = image
            if targets:
                outputs = zip(self._loaded.outputs, binding.outputs, strict=True)
                addresses = (targets[spec.name].address if spec.name in targets else own for spec, own in outputs)
                binding = binding._replace(outputs=tuple(addresses), to_host=bool(names))
                for buffer in targets.values():
                    self._wait_for(buffer, on)
            if self._loaded.parted:
                wanted = {*targets, *names}
                binding = binding._replace(wanted=tuple(spec.name in wanted for spec in self._loaded.outputs))
            self._enqueue(binding, layout, on)
            if stream is None or names:
                synchronize(on)
            else:
                self._done.record(on)
                self._pending = on
        except BaseException:
            self._settle(on)
            raise
        found: dict[str, Array] = {}
        for name in names:
            if (target := into.get(name)) is None:
                found[name] = layout.results[name].copy()
            else:
                target[...] = layout.results[name]
                found[name] = target
        return found

    def output_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the outputs' shapes for a shape of the input, by name.

        Raises:
            RunError: the engine refuses the shape.
        """
        return self._buffers.output_shapes(shape)

    def _output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        self._bound = None
        return self._loaded.output_shapes(self._execution, shape)

    def _begin(self, shape: Shape, on: int, *, staging: bool) -> None:
        """Wait until an earlier call, on a caller's stream, is done with this lane; make room for the batch."""
        fits = self._buffers.fits(shape)
        if self._pending is not None:
            if staging or not fits:
                self._done.synchronize()
            elif self._pending != on:
                self._done.make_wait(on)
            self._pending = None
        if not fits:
            self._forget_graphs()
            self._bound = None
            self._buffers.grow(shape)

    def _settle(self, on: int) -> None:
        """Wait for what a failed call has enqueued: its memory will be reused.

        Raises:
            DeviceLostError: the context is unusable, which the library did not say.
        """
        try:
            synchronize(on)
        except DeviceLostError:
            raise
        except RunError:
            pass

    def _wait_for(self, array: DeviceView, on: int) -> None:
        """Make a stream wait for the one that an array's producer, or reader, works on."""
        if array.stream is not None and array.stream != on:
            self._arrived.record(array.stream)
            self._arrived.make_wait(on)

    def _device_input(self, image: DeviceView, binding: Binding, on: int) -> int:
        self._wait_for(image, on)
        if image.address % ALIGNMENT == 0:
            return image.address
        copy_on_device(binding.device_input, image.address, image.size, on)  # TensorRT reads aligned addresses only
        return binding.device_input

    # enqueueing

    def _enqueue(self, binding: Binding, layout: BufferLayout, on: int) -> None:
        recorded = self._graphs.get(binding)
        if recorded is not None:
            self._graphs.move_to_end(binding)
            recorded.graph.launch(on)
            return
        if self.graphs_off is None:
            if binding in self._seen:
                self._record(binding, layout, on)
                return
            self._seen[binding] = None  # an address that is used once is not worth a graph
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
        self._plain(binding, layout, on)

    def _plain(self, binding: Binding, layout: BufferLayout, on: int) -> None:
        if binding != self._bound:
            self._bound = None
            self._loaded.bind(self._execution, binding)
            self._bound = binding
        self._work(self._execution, binding, layout, on)

    def _work(self, execution: Any, binding: Binding, layout: BufferLayout, on: int) -> None:
        """Enqueue the copies and the engine for the current binding."""
        if binding.host_input:
            copy_to_device(binding.device_input, binding.host_input, layout.input_bytes, on)
        self._loaded.enqueue(execution, on)
        if binding.to_host:
            results, block = self._buffers.result_address(), layout.binding.outputs[0]
            for begin, end in layout.spans(binding.wanted):
                copy_to_host(results + begin, block + begin, end - begin, on)

    def _record(self, binding: Binding, layout: BufferLayout, on: int) -> None:
        """Enqueue, then record a graph of the same, in the order that TensorRT asks for; without a graph where that fails."""
        try:
            execution = self._loaded.make_execution(self._activations)
            self._loaded.bind(execution, binding)
        except DeviceLostError:
            raise
        except RunError as error:
            self.graphs_off = str(error)
            self._plain(binding, layout, on)
            return
        self._uncaptured = execution
        self._work(execution, binding, layout, on)
        capturable = getattr(execution, "is_stream_capturable", None)  # TensorRT-RTX
        handle = self.stream.handle
        try:
            if capturable is not None and not capturable(handle):
                raise RunError(f"{self._loaded.library.title} says that this engine cannot be captured")
            graph = CudaGraph(handle, lambda: self._work(execution, binding, layout, handle))
        except DeviceLostError:
            raise
        except RunError as error:
            self.graphs_off = str(error)
            return
        self._uncaptured = None
        self._graphs[binding] = _Recorded(graph, execution)
        del self._seen[binding]
        while len(self._graphs) > self._loaded.graphs:
            _, oldest = self._graphs.popitem(last=False)
            synchronize(on)  # its launches are done then: this stream has waited for what they ran on
            oldest.graph.close()

    def _forget_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].graph.close()
        self._seen.clear()

    def close(self) -> None:
        """Free everything, once the lane's work is done. After a lost device, it frees what it can."""
        if self._pending is not None:
            with suppress(RunError):
                self._done.synchronize()
        with suppress(RunError):
            self._forget_graphs()
        self._execution = self._uncaptured = None
        self.__dict__.pop("_loaded", None)  # a lane that is kept by an exception's traceback must not keep the engine
        for resource in reversed(self._closers):
            with suppress(RunError):
                resource.close()
        self._closers = []
