"""One execution context of an engine, with its stream, its memory and the graphs recorded on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from .backend import Array, TensorSpec
from .cuda import (
    ALIGNMENT,
    Context,
    DeviceMemory,
    Event,
    Graph,
    Stream,
    copy_on_device,
    copy_to_device,
    copy_to_host,
    synchronize,
)
from .device_array import DeviceView
from .errors import DeviceLostError, DeviceMemoryError, RunError
from .tensorrt_library import Library
from .tensorrt_log import Messages
from .tensorrt_memory import Binding, Buffers, Layout, sizes_of

_Resource = TypeVar("_Resource")
_SEEN = 64  # bindings remembered as used once


@dataclass(frozen=True)
class LoadedEngine:
    """A deserialized engine and what all its lanes need.

    Attributes:
        library: that runs it.
        engine: the library's object.
        context: the CUDA context that it lives in.
        input: the image's tensor.
        outputs: the tasks' tensors.
        messages: what the library says.
        graphs: number of CUDA graphs that a lane keeps; 0: none.
        runtime_config: TensorRT-RTX's; None for TensorRT.
    """

    library: Library
    engine: Any
    context: Context
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    messages: Messages
    graphs: int
    runtime_config: Any = None


class Lane:
    """An execution context for one thread at a time. Its CUDA context is current whenever a method is called.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library gives no context.
    """

    def __init__(self, loaded: LoadedEngine) -> None:
        self._loaded = loaded
        self.graphs_off: str | None = None if loaded.graphs else "turned off"
        """Why no graph is recorded; None where they are."""
        self._graphs: OrderedDict[Binding, Graph] = OrderedDict()
        self._seen: OrderedDict[Binding, None] = OrderedDict()
        self._bound: Binding | None = None
        self._pending: int | None = None  # a caller's stream whose work still uses this lane
        self._execution: Any = None
        self._closers: list[Any] = []
        try:
            self._buffers = self._keep(Buffers(loaded.input, loaded.outputs, loaded.context))
            self.stream = self._keep(Stream())
            self._done = self._keep(Event())
            self._arrived = self._keep(Event())
            size = loaded.library.device_memory_size(loaded.engine)
            self._activations = self._keep(DeviceMemory(size))
            loaded.messages.clear()
            self._execution = loaded.library.create_context(loaded.engine, loaded.runtime_config)
            if self._execution is None:
                raise self._failure("no execution context")
            loaded.library.set_device_memory(self._execution, self._activations.address, size)
        except BaseException:
            self.close()
            raise

    def _keep(self, resource: _Resource) -> _Resource:
        self._closers.append(resource)
        return resource

    def _failure(self, what: str) -> RunError:
        messages = self._loaded.messages
        text = f"{self._loaded.library.title} failed ({what}): {messages.reason()}"
        return (
            DeviceMemoryError(f"{text}; use smaller batches or fewer models")
            if messages.out_of_memory
            else RunError(text)
        )

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
            targets: device memory to leave outputs in, by name.
            names: outputs to bring to host memory.
            into: arrays for those, by name.
            pinned: whether a host ``image`` lies in pinned memory.
            stream: the caller's; None: the lane's own, which is waited for. With a caller's stream, only a call that brings
                outputs to host memory waits.
        """
        on_device = isinstance(image, DeviceView)
        batch = image.shape[0]
        on = self.stream.handle if stream is None else stream
        self._begin(batch, on, staging=not on_device)
        layout = self._buffers.layout(batch)
        binding = layout.binding
        if isinstance(image, DeviceView):
            address = self._device_input(image, binding.device_input, on, own=stream is None)
            binding = binding._replace(host_input=0, device_input=address)
        elif pinned:
            binding = binding._replace(host_input=image.ctypes.data)
        else:
            layout.staging[...] = image
        if targets:
            outputs = zip(self._loaded.outputs, binding.outputs, strict=True)
            addresses = (targets[spec.name].address if spec.name in targets else own for spec, own in outputs)
            binding = binding._replace(outputs=tuple(addresses), to_host=bool(names))
        self._enqueue(binding, layout, on)
        if stream is None or names:
            synchronize(on)
        else:
            self._done.record(on)
            self._pending = on
        found: dict[str, Array] = {}
        for name in names:
            if (target := into.get(name)) is None:
                found[name] = layout.results[name].copy()
            else:
                target[...] = layout.results[name]
                found[name] = target
        return found

    def _begin(self, batch: int, on: int, *, staging: bool) -> None:
        """Wait for what an earlier call, on a caller's stream, still does with this lane; make room for the batch."""
        fits = self._buffers.fits(batch)
        if self._pending is not None:
            if staging or not fits:
                self._done.synchronize()
            elif self._pending != on:
                self._done.make_wait(on)
            self._pending = None
        if not fits:
            self._forget_graphs()
            self._bound = None
            self._buffers.grow(batch)

    def _device_input(self, image: DeviceView, own_input: int, on: int, *, own: bool) -> int:
        if image.stream is not None and own:
            self._arrived.record(image.stream)
            self._arrived.make_wait(on)
        if image.address % ALIGNMENT == 0:
            return image.address
        copy_on_device(own_input, image.address, image.size, on)  # TensorRT reads aligned addresses alone
        return own_input

    # enqueueing

    def _enqueue(self, binding: Binding, layout: Layout, on: int) -> None:
        graph = self._graphs.get(binding)
        if graph is not None:
            self._graphs.move_to_end(binding)
            graph.launch(on)
            return
        if binding != self._bound:
            self._bind(binding)
        self._work(binding, layout, on)
        if self.graphs_off is None:
            if binding in self._seen:
                self._record(binding, layout, on)
            else:  # an address that is used once is not worth a graph
                self._seen[binding] = None
                if len(self._seen) > _SEEN:
                    self._seen.popitem(last=False)

    def _work(self, binding: Binding, layout: Layout, on: int) -> None:
        """Enqueue copies and engine for the binding that is in force."""
        if binding.host_input:
            copy_to_device(binding.device_input, binding.host_input, layout.input_bytes, on)
        if not self._execution.execute_async_v3(on):
            raise self._failure("enqueue")
        if binding.to_host:
            copy_to_host(self._buffers.result_address(), layout.binding.outputs[0], layout.output_bytes, on)

    def _bind(self, binding: Binding) -> None:
        self._bound = None
        self._loaded.messages.clear()
        execution, image = self._execution, self._loaded.input
        ok = execution.set_input_shape(image.name, (binding.batch, *sizes_of(image)))
        ok = execution.set_tensor_address(image.name, binding.device_input) and ok
        for spec, address in zip(self._loaded.outputs, binding.outputs, strict=True):
            ok = execution.set_tensor_address(spec.name, address) and ok
        if not ok:
            raise self._failure("binding")
        self._bound = binding

    def _record(self, binding: Binding, layout: Layout, on: int) -> None:
        """Record a graph of a binding that was just enqueued, as TensorRT asks; go on without graphs where it cannot be."""
        capturable = getattr(self._execution, "is_stream_capturable", None)  # TensorRT-RTX
        handle = self.stream.handle
        try:
            if capturable is not None and not capturable(handle):
                raise RunError(f"{self._loaded.library.title} says that this engine cannot be captured")
            graph = Graph(handle, lambda: self._work(binding, layout, handle))
        except DeviceLostError:
            raise
        except RunError as error:
            self.graphs_off = str(error)
            self._bound = None
            return
        self._graphs[binding] = graph
        del self._seen[binding]
        while len(self._graphs) > self._loaded.graphs:
            _, oldest = self._graphs.popitem(last=False)
            synchronize(on)  # its launches are done then: what they ran on, this stream has waited for
            oldest.close()

    def _forget_graphs(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        self._seen.clear()

    def close(self) -> None:
        """Free everything, once the lane's work is done. After a lost device, what can be freed is."""
        if self._pending is not None:
            with suppress(RunError):
                self._done.synchronize()
        with suppress(RunError):
            self._forget_graphs()
        self._execution = None
        for resource in reversed(self._closers):
            with suppress(RunError):
                resource.close()
        self._closers = []
