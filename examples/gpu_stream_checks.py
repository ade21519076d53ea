"""The checks of gpu_check.py on several models, callers' streams, and the inside of an engine, one function each."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
from gpu_machine import Machine, compare, in_child

from mtl_deploy.runtime import MtlError, load
from mtl_deploy.runtime.backends.tensorrt.engine import LoadedEngine
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cuda.arrays import DeviceArray
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import (
    CudaGraph,
    DeviceMemory,
    PinnedMemory,
    Stream,
    copy_to_device,
    copy_to_host,
    synchronize,
)

# one model closed while another lives


def closed_first(machine: Machine) -> dict[str, Any]:
    """Load A, load B, close A, run B with changing batch sizes, and make the library log an error, in a separate process."""
    return in_child(machine, "gpu_stream_checks", "close_first")


def close_first(machine: Machine) -> dict[str, Any]:
    """Do it in this process, which a crash would end."""
    batches = (1, 3, 8, 2, 5, 1, 8)
    first, second = machine.load(), machine.load()
    expected = {batch: first(machine.images(batch, seed=batch)) for batch in set(batches)}
    first.close()
    del first
    gc.collect()
    with second:
        for batch in batches:
            compare(second(machine.images(batch, seed=batch)), expected[batch], f"batch {batch}")
        said = _complaint(second.backend.loaded)
        compare(second(machine.images(2, seed=2)), expected[2], "after an error")
    with machine.load() as third:
        compare(third(machine.images(2, seed=2)), expected[2], "a third model")
    return {"calls": len(batches) + 2, "said": said}


def _complaint(loaded: LoadedEngine) -> str:
    """Make the library complain about a shape, and return its message."""
    with loaded.context.active():
        memory = DeviceMemory(loaded.library.device_memory_size(loaded.engine))
        execution = loaded.make_execution(memory)
        loaded.messages.clear()
        assert not execution.set_input_shape(loaded.input.name, (1, 7, 7, 7, 7)), (
            "a shape of five dimensions was accepted"
        )
        del execution
        memory.close()
    return loaded.messages.reason()


# streams


def callers_stream(machine: Machine) -> dict[str, Any]:
    """Run on a caller's stream until the model replays graphs on it, with and without ``out=``; then capture a call."""
    found: dict[str, Any] = {}
    batch = machine.images(4)
    with machine.load() as model:
        expected = model(batch)
        context = model.backend.loaded.context
        with context.active():
            stream = Stream()
            memory, pinned = DeviceMemory(batch.nbytes), PinnedMemory(batch.nbytes, context)
            pinned.array(batch.dtype, batch.shape)[...] = batch
            copy_to_device(memory.address, pinned.address, batch.nbytes, stream.handle)
            given = DeviceArray(memory.address, batch.shape, batch.dtype, stream.handle, lambda: None)
            kept = model(given, stream=stream.handle, on_device=True)
            for turn in range(4):  # plain, recorded, replayed twice
                left = model(given, stream=stream.handle, on_device=True)
                compare(_to_host(left, stream, context), expected, f"without out=, call {turn}")
                model(given, out=kept, stream=stream.handle)
                compare(_to_host(kept, stream, context), expected, f"with out=, call {turn}")
            found["graphs_off"] = model.backend.graphs_off
            found["captured by the caller"] = {
                "with out=": _captured(lambda: model(given, out=kept, stream=stream.handle), stream),
                "without": _captured(lambda: model(given, stream=stream.handle, on_device=True), stream),
            }
            model(given, out=kept, stream=stream.handle)
            compare(_to_host(kept, stream, context), expected, "after the captures")
            kept.clear()
            left.clear()
            stream.close()
            memory.close()
    return found


def _captured(call: Any, stream: Stream) -> str:
    """Capture a call in a graph and launch it; return what happened. It is not promised to work."""
    try:
        graph = CudaGraph(stream.handle, call)
    except MtlError as error:
        return f"refused: {error}"
    graph.launch(stream.handle)
    synchronize(stream.handle)
    graph.close()
    return "captured and launched"


def _to_host(arrays: dict[str, Any], stream: Stream, context: Context) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        size = array.dtype.itemsize * int(np.prod(array.shape))
        block = PinnedMemory(size, context)
        copy_to_host(block.address, array.address, size, stream.handle)
        synchronize(stream.handle)
        found[name] = block.array(array.dtype, array.shape).copy()
    return found


# inside an engine, and several at once


def in_parts(machine: Machine) -> dict[str, Any]:
    """Run the backbone and heads as engines of their own: how far that is from the whole engine, and what each head costs."""
    precision, tasks = machine.best, [task.name for task in open_bundle(machine.bundle).manifest.tasks]
    parts = [part for part in open_bundle(machine.bundle).manifest.parts if part.backend == "tensorrt"]
    if not any(part.precision == precision for part in parts):
        return {"skipped": "the bundle has no engines of parts; export it with --split"}
    images, found, times = machine.images(4), {}, {}
    with (
        machine.load(split=False) as whole,
        load(machine.bundle, backend="tensorrt", precision=precision, split=True) as model,
    ):
        expected = whole(images)
        for chosen in ([task] for task in tasks):
            for turn in range(4):  # plain, recorded, replayed twice
                given = model(images, tasks=chosen)
                assert list(given) == chosen
                if not turn:
                    found |= {task: float(np.abs(given[task] - expected[task].astype(float)).max()) for task in chosen}
                    first = given
                compare(given, first, f"{chosen}, call {turn}")
        for name, call in [
            ("whole", lambda: whole(images)),
            ("all parts", lambda: model(images)),
            *((task, lambda task=task: model(images, tasks=[task])) for task in tasks),
        ]:
            seconds = []
            for _ in range(60):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            times[name] = round(float(np.median(seconds[10:])) * 1e3, 4)
        return {"largest_difference": found, "milliseconds": times, "graphs_off": model.backend.graphs_off}


def shares_and_one_graph(machine: Machine) -> dict[str, Any]:
    """Profile the shared engine part by part, and run the separate engines as one CUDA graph."""
    from mtl_deploy.bench.sections.where.engine_profile import profile_engine
    from mtl_deploy.runtime.backends.tensorrt.together import Together
    from mtl_deploy.runtime.onnx_format.graph import read_graph

    images = machine.images(1)
    source = read_graph((machine.bundle / machine.engines[machine.best].details["source"]).read_bytes())
    with machine.load() as model:
        profile = profile_engine(model.backend, source, images)
    shares = {part.name: round(part.share, 4) for part in profile.parts}
    assert abs(sum(shares.values()) - 1) < 0.01, shares
    separate = [
        item
        for item in open_bundle(machine.bundle).manifest.artifacts
        if (item.role, item.backend, item.precision) == ("separate", "tensorrt", machine.best)
    ]
    if not separate:
        return {"shares": shares, "warnings": list(profile.warnings), "one graph": "the bundle has no separate engines"}
    models = [load(machine.bundle / item.path) for item in separate]
    try:
        expected = {name: array for one in models for name, array in one(images).items()}
        together = Together([one.backend for one in models], 1, whole=True)  # type: ignore[misc]
        for call in range(3):
            compare(together(images), expected, f"one graph, call {call}")
        together.close()
    finally:
        for one in models:
            one.close()
    return {"shares": shares, "warnings": list(profile.warnings), "one graph": [item.path for item in separate]}
