"""What ``model.predict`` adds to a bare session of ONNX Runtime, on a bundle with dense tasks.

    python examples/dense_overhead.py model.mtl

The image has the network's own size, so that both do the same work: predict checks the image, runs the graph and maps each task's
output to the image's pixels. The two are timed in turn in one run, so that changes of the machine's speed affect both equally.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.images.loading import prepare
from mtl_deploy.runtime.selection import select

ROUNDS = 40
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    print(compare(arguments.bundle, arguments.threads, arguments.rounds))


def compare(path: Path, threads: int, rounds: int) -> str:
    """Compare ``model.predict(image)`` with the session's ``run`` on the same graph and the same image, already prepared."""
    bundle = open_bundle(path)
    preprocessing = bundle.manifest.signature.preprocessing
    size = (preprocessing.height, preprocessing.width)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tensor, _ = prepare(image, preprocessing)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    content = bundle.read(select(bundle, providers=["CPU"]).artifact)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with load(path, providers=["CPU"], threads=threads) as model:
        bare, ours = in_turn(lambda: session.run(names, {"image": tensor}), lambda: model.predict(image), rounds)
    ratio = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
    rows = [
        ["InferenceSession.run", f"{statistics.median(bare):.2f}"],
        ["model.predict(image)", f"{statistics.median(ours):.2f}"],
    ]
    counted = table([f"one image of {size[1]}x{size[0]}", "median, milliseconds"], rows)
    return f"{counted}\npredict over the bare session, median of {rounds} pairs: {ratio:.3f}"


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Time two functions in turn; return the milliseconds of each round."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP):
        first()
        second()
    for turn in range(rounds):
        pair = [(first, times[0]), (second, times[1])]
        for work, into in pair if turn % 2 == 0 else reversed(pair):
            started = time.perf_counter_ns()
            work()
            into.append((time.perf_counter_ns() - started) / 1e6)
    return times


if __name__ == "__main__":
    main()
