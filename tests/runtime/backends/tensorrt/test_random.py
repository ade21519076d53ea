from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import load
from tests.fakes.gpu import IMAGES, EngineBundle, GpuArray, Simulation, check

TASKS = ("age", "gender", "race")
SIZES = {"age": 1, "gender": 1, "race": 3}


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_calls_gives_each_its_own_results(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, seed: int
) -> None:
    """Inputs and outputs in every place, on every stream; results on the GPU are looked at last of all."""
    driver, rng = machine.cuda, random.Random(seed)
    with machine.as_torch(), load(engine_bundle(), contexts=2, cuda_graphs=rng.choice((0, 2, 8))) as model:
        streams = [None, None, 0, driver.new_stream(), driver.new_stream(blocking=True)]
        pinned = [model.pinned(8) for _ in range(2)]
        for image, start in zip(pinned, (0, 5), strict=True):
            image[...] = IMAGES[start : start + 8]
        fixed = [GpuArray(driver, IMAGES[start : start + 8], offset=offset) for start, offset in ((3, 0), (7, 48))]
        later: list[tuple[Any, np.ndarray]] = []
        for _ in range(120):
            batch, stream = rng.choice((1, 2, 2, 3, 8)), rng.choice(streams)
            where = rng.choice(("host", "pinned", "fixed", "produced"))
            start = rng.randrange(16)
            image: Any = IMAGES[start : start + batch]
            if where == "pinned":
                image = rng.choice(pinned)[:batch]
            truth = np.array(image)
            if where == "fixed":
                number = rng.randrange(2)
                truth = IMAGES[(3, 7)[number] :][:batch]
                image = fixed[number].interface(shape=(batch, 8, 8, 3), stream=None)
                image.shape = (batch, 8, 8, 3)
            if where == "produced":
                produced = GpuArray(driver, truth, stream=rng.choice(streams[2:]), offset=rng.choice((0, 256, 4)))
                image = rng.choice((produced.interface(stream=produced.stream or 1), produced.dlpack()))
                later.append((produced, np.zeros(0)))
            out: dict[str, Any] = {}
            tasks = rng.sample(TASKS, rng.randint(1, 3))
            for task in tasks:
                place = rng.choice(("own", "host", "gpu"))
                if place == "host":
                    out[task] = np.zeros((batch, SIZES[task]), np.float32)
                if place == "gpu":
                    buffer = GpuArray(driver, np.zeros((batch, SIZES[task]), np.float32))
                    out[task] = buffer.interface()
                    later.append((buffer, truth))
                    buffer.task = task  # type: ignore[attr-defined]
            found = model(image, tasks, out, stream=stream, on_device=rng.random() < 0.4)
            assert list(found) == tasks
            for task, values in found.items():
                if isinstance(values, np.ndarray):
                    check({task: values}, truth)
                elif task not in out:
                    later.append((values, truth))
                    values.task = task
            if rng.random() < 0.1:
                driver.cuStreamSynchronize(rng.choice(streams[2:]))
        for stream in rng.sample(streams[2:], 3):
            driver.cuStreamSynchronize(stream)
        for array, truth in later:
            if truth.size:
                view = SimpleNamespace(shape=array.shape, dtype=array.dtype, address=array.address)
                check({array.task: GpuArray.read(view)}, truth)  # type: ignore[arg-type]
        for array in (*fixed, *(array for array, _ in later)):
            if isinstance(array, GpuArray):
                array.free()
        del found, values, later, array, image, pinned
        for handle in streams[3:]:
            driver.cuStreamDestroy(handle)
