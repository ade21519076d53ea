"""A network in parts on ONNX Runtime: the backbone runs once, then the heads that a call asks for, in the memory that it left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.cuda.arrays import is_on_device
from mtl_deploy.runtime.errors import BackendError, BundleError, RunError

from .backend import OnnxRuntimeBackend


@dataclass(frozen=True)
class PartGraph:
    """One part of a network.

    Attributes:
        read: returns the ``.onnx`` file's bytes.
        where: how errors call the file.
        tasks: those that need it.
        inputs: names of what it reads: the image, or what parts before it give.
        outputs: names of tasks, and of what parts after it read.
    """

    read: Callable[[], bytes]
    where: str
    tasks: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxRuntimeParts:
    """Runs a network that is cut into parts. Safe to call from several threads.

    What one part gives stays where it was computed, on the GPU or in host memory, and the next ones read it there: nothing is
    copied. Each weight is loaded once, whichever tasks are asked for.

    Args:
        parts: each after those whose outputs it takes.
        tasks: the only ones that will be needed; None: all. Parts that they do not need are not loaded.
        providers: see :class:`OnnxRuntimeBackend`, as the others.
        threads: likewise.
        spinning: likewise.
        mode: likewise.

    Raises:
        OptionError: an option is out of range.
        BackendError: onnxruntime is missing or broken, or a provider is not available.
        BundleError: a file is not a graph that it can load.
    """

    name = "onnxruntime"

    def __init__(
        self,
        parts: Sequence[PartGraph],
        *,
        tasks: Sequence[str] | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        spinning: bool = True,
        mode: str = "latency",
    ) -> None:
        every = dict.fromkeys(task for part in parts for task in part.tasks)
        wanted = [part for part in parts if tasks is None or not set(tasks).isdisjoint(part.tasks)]
        self._loaded: list[tuple[PartGraph, OnnxRuntimeBackend]] = []
        try:
            for part in wanted:
                options: dict[str, Any] = {
                    "providers": providers,
                    "threads": threads,
                    "spinning": spinning,
                    "mode": mode,
                }
                loaded = OnnxRuntimeBackend(part.read, where=part.where, **options)
                self._loaded.append((part, loaded))
                if {spec.name for spec in loaded.inputs} != {*part.inputs} or {
                    spec.name for spec in loaded.outputs
                } != {*part.outputs}:
                    raise BundleError(
                        f"{part.where}: its inputs and outputs are not those of the manifest; export again"
                    )
        except BaseException:
            self.close()
            raise
        specs = {spec.name: spec for _, loaded in self._loaded for spec in (*loaded.inputs, *loaded.outputs)}
        given = {name for part in parts for name in part.outputs}
        self._read = {name for part in parts for name in part.inputs}
        self.inputs: tuple[TensorSpec, ...] = tuple(spec for name, spec in specs.items() if name not in given)
        self.outputs: tuple[TensorSpec, ...] = tuple(specs[name] for name in every if tasks is None or name in tasks)
        self.details = f"{self._loaded[0][1].details}, in {len(self._loaded)} parts"
        self.metadata: Mapping[str, str] = {}  # the bundle's manifest says what they compute together

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run the parts that the outputs need; see :meth:`~mtl_deploy.runtime.backends.base.Backend.run`."""
        given = into or {}
        if stream is not None or on_device or any(is_on_device(value) for value in (*inputs.values(), *given.values())):
            raise BackendError(
                "ONNX Runtime takes only arrays in host memory here; CUDA streams and arrays on the GPU need an engine "
                "(backend='tensorrt')"
            )
        if not self._loaded:
            raise RunError("the model is closed; load it again")
        values: dict[str, Any] = dict(inputs)
        for part, loaded in self._loaded:
            if set(outputs).isdisjoint(part.tasks):
                continue
            kept = [name for name in part.outputs if name in self._read]
            both = {name for name in kept if name in given}  # a task that other parts read: its buffer is filled below
            buffers = {name: given[name] for name in part.outputs if name in given and name not in both}
            values |= loaded.run_bound({name: values[name] for name in part.inputs}, part.outputs, buffers, kept)
        found: dict[str, Any] = {}
        for name in outputs:
            if (buffer := given.get(name)) is None:
                found[name] = values[name].numpy()
            else:
                found[name] = buffer
                if name in self._read:
                    buffer[...] = values[name].numpy()
        return found

    def close(self) -> None:
        """Free the sessions."""
        loaded, self._loaded = self._loaded, []
        for _, backend in loaded:
            backend.close()
