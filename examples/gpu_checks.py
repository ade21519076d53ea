"""The checks of gpu_check.py on speed, memory and faults, one function each. gpu_library_checks.py has the others.

Each returns its figures or raises; ``skipped`` in the result is the reason why it was skipped.
"""

from __future__ import annotations

import threading as threading_module
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gpu_machine import Machine, in_child

from mtl_deploy.runtime import DeviceLostError, DeviceMemoryError, load
from mtl_deploy.runtime.bundle.manifest import open_bundle

TURNS, SETTLING = 1200, 200  # rounds for the overhead; the first ones are warm-up
THREAD_CALLS = 250  # per thread, of 8 threads
SOAK_CALLS = 10_000


def against_onnxruntime(machine: Machine) -> dict[str, Any]:
    """Compare each engine with ONNX Runtime on the fp32 graph, task by task, on images that are not the reference's."""
    if find_spec("onnxruntime") is None:
        return {"skipped": "onnxruntime is not installed; the engines were verified against PyTorch's outputs"}
    images = machine.images(8, seed=5)
    with load(machine.bundle, backend="onnxruntime", precision="fp32", providers=["CPU"]) as model:
        expected = model(images)
    found = {}
    for precision in machine.precisions:
        with machine.load(precision) as model:
            given = model(images)
        found[precision] = {task: float(np.abs(given[task] - expected[task]).max()) for task in expected}
    return {"largest_difference": found}


def overhead(machine: Machine) -> dict[str, Any]:
    """Time model(batch) against a bare loop of copy, execute_async_v3, copy, synchronize, in turn, in microseconds."""
    from bare_loop import BareLoop

    found: dict[str, Any] = {}
    batch = machine.images(1)
    for graphs in (0, 8):
        with machine.load(cuda_graphs=graphs) as model, BareLoop(model) as bare:
            pinned = model.pinned(1)
            pinned[:] = batch
            contestants = {
                "bare": bare,
                "model(array)": lambda m=model: m(batch),
                "model(pinned)": lambda m=model, p=pinned: m(p),
            }
            times: dict[str, list[float]] = {name: [] for name in contestants}
            for turn in range(TURNS):
                for name in contestants if turn % 2 == 0 else reversed(contestants):
                    started = time.perf_counter_ns()
                    contestants[name]()
                    times[name].append((time.perf_counter_ns() - started) / 1e3)
            kept = {name: np.array(values[SETTLING:]) for name, values in times.items()}
            found["graphs on" if graphs else "graphs off"] = {
                "median_us": {name: float(np.median(values)) for name, values in kept.items()},
                "added_us": {name: float(np.median(kept[name] - kept["bare"])) for name in kept if name != "bare"},
                "graphs_off": model.backend.graphs_off,
            }
    return found


def torch_interop(machine: Machine) -> dict[str, Any]:
    """Use PyTorch tensors and streams, with outputs left on the GPU."""
    if find_spec("torch") is None:
        return {"skipped": "torch is not installed in this interpreter"}
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "this torch has no CUDA"}
    images = machine.images(4)
    with machine.load() as model:
        expected = model(images)
        on_gpu = torch.from_numpy(images).cuda()
        given = model(on_gpu)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            moved = torch.from_numpy(images).cuda(non_blocking=True)
            left = model(moved, stream=stream, on_device=True)
            tensors = {task: torch.as_tensor(array, device="cuda") for task, array in left.items()}
        stream.synchronize()
        out = {task: torch.empty(array.shape, device="cuda") for task, array in expected.items()}
        model(on_gpu, out=out)
        ways = {
            "tensor in": given,
            "stream": {task: tensor.cpu().numpy() for task, tensor in tensors.items()},
            "out": {task: tensor.cpu().numpy() for task, tensor in out.items()},
        }
        for name, found in ways.items():
            for task, values in expected.items():
                np.testing.assert_allclose(found[task], values, rtol=1e-4, atol=1e-5, err_msg=f"{name}, {task}")
    return {"ways": ["tensor in", "tensor in on a stream, outputs left there", "tensors out"]}


def threads(machine: Machine) -> dict[str, Any]:
    """Call one model from 8 threads with several batch sizes; each call must get its own result."""
    wrong: list[str] = []
    with machine.load(contexts=4) as model:
        work = {
            batch: (machine.images(batch, seed=batch), model(machine.images(batch, seed=batch)))
            for batch in (1, 2, 5, 8)
        }

        def call(seed: int) -> None:
            order = np.random.default_rng(seed).choice(list(work), THREAD_CALLS)
            for batch in order:
                images, expected = work[int(batch)]
                given = model(images)
                for task, values in expected.items():
                    if not np.allclose(given[task], values, rtol=1e-3, atol=1e-4):
                        wrong.append(f"thread {seed}, batch {batch}, {task}")

        workers = [threading_module.Thread(target=call, args=(seed,)) for seed in range(8)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - started
    assert not wrong, wrong[:5]
    return {"calls": 8 * THREAD_CALLS, "seconds_for_all": round(seconds, 2)}


def soak(machine: Machine) -> dict[str, Any]:
    """Call 10,000 times with changing batch sizes; neither GPU nor host memory may grow."""
    with machine.load() as model:
        batches = [machine.images(batch) for batch in (1, 3, 8)]
        for _ in range(3):
            for batch in batches:
                model(batch)
        before, resident = model.backend.loaded.context.memory()[0], _resident()
        for call in range(SOAK_CALLS):
            model(batches[call % 3])
        lost, grown = before - model.backend.loaded.context.memory()[0], _resident() - resident
    assert lost < 8 << 20, f"{lost / 1e6:.1f} MB of GPU memory are gone"
    assert grown < 32 << 20, f"the process grew by {grown / 1e6:.1f} MB"
    return {"gpu_memory_lost_MB": lost / 1e6, "resident_grown_MB": grown / 1e6}


def _resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


def out_of_memory(machine: Machine) -> dict[str, Any]:
    """Fill the GPU's memory, ask for more, free it, and go on with the same model."""
    from mtl_deploy.runtime.cuda.context import Context

    images = machine.images(1)
    context = Context()
    try:
        with machine.load() as model, context.active():
            expected = model(images)
            blocks = list(_fill(context))
            error = None
            try:
                machine.load().close()
            except DeviceMemoryError as caught:
                error = str(caught)
            still = model(images)
            for block in blocks:
                block.close()
            machine.load().close()
            np.testing.assert_allclose(still["age"], expected["age"], rtol=1e-3)
    finally:
        context.close()
    assert error is not None, "loading into a full GPU raised no DeviceMemoryError"
    return {"error": error}


def _fill(context: Any) -> Iterator[Any]:
    """Allocate until less than a megabyte is left."""
    from mtl_deploy.runtime.cuda.driver import DeviceMemory

    size = context.memory()[0]
    while size > 1 << 20:
        try:
            yield DeviceMemory(size)
        except DeviceMemoryError:  # noqa: PERF203 - it shows when to go on with smaller blocks
            size //= 2


def lost_device(machine: Machine) -> dict[str, Any]:
    """Let a kernel read an unmapped address in a separate process; close the model and open it again there."""
    return in_child(machine, "gpu_checks", "break_and_mend")


def break_and_mend(machine: Machine) -> dict[str, Any]:
    """Lose the device: the error must say to restart, and the models must close. Whether the process can go on is recorded."""
    images = machine.images(1)

    class Nowhere:
        shape = images.shape
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": images.shape,
            "typestr": "|u1",
            "data": (0x7F0000000000, True),
            "strides": None,
            "version": 3,
            "stream": None,
        }

    model, other = machine.load(), machine.load()
    expected = model(images)
    try:
        model(Nowhere())
    except DeviceLostError as error:
        lost = str(error)
    else:
        raise AssertionError("reading an unmapped address raised nothing")
    assert "start the process again" in lost, lost
    model.close()
    other.close()
    try:
        with machine.load() as again:
            given = again(images)
        task = next(iter(expected))
        np.testing.assert_allclose(given[task], expected[task], rtol=1e-3)
        mended: bool | str = True
    except Exception as error:  # noqa: BLE001 - the finding itself
        mended = f"{type(error).__name__}: {error}"
    return {"lost": lost, "opened_again": mended}


def rtx_engine(machine: Machine) -> dict[str, Any]:
    """Build with TensorRT-RTX, if it is installed, and try to run: it need not support this GPU."""
    if find_spec("tensorrt_rtx") is None:
        return {"skipped": "TensorRT-RTX is not installed"}
    from mtl_deploy.export.cli import main

    target = machine.out / "rtx.mtl"
    code = main(
        [str(machine.bundle), "--engine", "tensorrt-rtx", "--precision", machine.best, "-o", str(target), "-f", "-q"]
    )
    engines = [item for item in open_bundle(target).manifest.artifacts if item.details.get("library") == "tensorrt-rtx"]
    return {"exit_code": code, "verified": {item.path: item.details["verified"] for item in engines}}
