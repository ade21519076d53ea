"""The runtime in a program that uses pycuda, with its context, arrays and stream. No second context is created.

    pip install '.[tensorrt,pycuda]'
    python examples/pycuda_embed.py model.mtl

pycuda creates a context (``autoinit``); the runtime uses the context that is current.
"""

from __future__ import annotations

import sys

import numpy as np
import pycuda.autoinit  # the program's context
import pycuda.driver
import pycuda.gpuarray

from mtl_deploy.runtime import load


def main(bundle: str) -> None:
    with load(bundle, backend="tensorrt") as model:
        size = model.signature.preprocessing
        shape = (4, size.height, size.width, 3)
        stream = pycuda.driver.Stream()
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        images = pycuda.gpuarray.to_gpu_async(pixels, stream=stream)

        # a GPUArray in, on pycuda's stream, into GPUArrays of the program's own: nothing is copied, nothing is waited for
        tasks = {task.name: pycuda.gpuarray.empty((4, task.size), np.float32) for task in model.tasks}
        model(images, out=tasks, stream=stream)
        stream.synchronize()
        for name, array in tasks.items():
            print(name, array.get()[:, 0])

        # the same from host memory, for comparison
        for name, values in model(pixels).items():
            np.testing.assert_allclose(values, tasks[name].get(), rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    main(sys.argv[1])
