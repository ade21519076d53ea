"""What the runtime adds to the time of an ONNX Runtime call, with a ready batch and a camera's frame, and what importing takes.

    python examples/runtime_overhead.py model.mtl

Each pair is timed in turn in one run, so that changes of the machine's speed affect both equally.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from mtl_deploy.runtime import Model, load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import prepare_all
from mtl_deploy.runtime.images.resize import resize
from mtl_deploy.runtime.selection import select

ROUNDS = 300
FRAME_ROUNDS = 60
FRAMES = ((480, 640), (720, 1280), (1080, 1920))
IMPORTS = 7
Run = Callable[[object], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(calls(arguments.bundle, arguments.threads))
    print()
    print(frames(arguments.bundle, arguments.threads))
    print()
    print(imports())


def calls(path: Path, threads: int) -> str:
    """Compare ``model(batch)`` with the session's own ``run`` on the same graph and batch."""
    preprocessing, run = bare_session(path, threads)
    batch = pixels(preprocessing.height, preprocessing.width)[None]
    with load(path, providers=["CPU"], threads=threads) as model:
        bare, ours = in_turn(lambda: run(batch), lambda: model(batch), ROUNDS)
        added = statistics.median(b - a for a, b in zip(bare, ours, strict=True))
    rows = [
        ["InferenceSession.run", f"{statistics.median(bare):.1f}"],
        ["model(batch)", f"{statistics.median(ours):.1f}"],
    ]
    return f"{table(['call', 'median, microseconds'], rows)}\nadded, median of {ROUNDS} pairs: {added:.1f} microseconds"


def frames(path: Path, threads: int) -> str:
    """Compare ``predict(frame)`` of a camera's BGR frame with the session on a ready batch, by the time of Pillow's own resize.

    Each time is the fastest round's: what other programs add to a round would count as the runtime's.
    """
    preprocessing, run = bare_session(path, threads)
    with load(path, providers=["CPU"], threads=threads, layout="bgr") as model:
        rows = [ratios(pixels(*size), model, run, preprocessing) for size in FRAMES]
    head = ["frame", "Pillow's resize, ms", "predict adds, times that", "numpy's resize, times that"]
    return table([*head, "four at once, of one by one"], rows)


def ratios(frame: np.ndarray, model: Model, run: Run, preprocessing: Preprocessing) -> list[str]:
    height, width = frame.shape[:2]
    high, wide = place(height, width, preprocessing).box[2:]
    kind, picture = preprocessing.interpolation, Image.fromarray(frame)
    method = Image.Resampling[kind.upper()]
    ready, _ = prepare_all(frame, preprocessing).batches[0]
    bare, ours = in_turn(lambda: run(ready), lambda: model.predict(frame), FRAME_ROUNDS)
    pillow, numpy = in_turn(
        lambda: picture.resize((wide, high), method), lambda: resize(frame, high, wide, kind), FRAME_ROUNDS
    )
    alone, together = in_turn(
        lambda: [prepare_all(frame, preprocessing) for _ in range(4)],
        lambda: prepare_all([frame] * 4, preprocessing),
        FRAME_ROUNDS,
    )
    unit = min(pillow)
    found = ((min(ours) - min(bare)) / unit, min(numpy) / unit, min(together) / min(alone))
    return [f"{width}x{height}", f"{unit / 1e3:.1f}", *(f"{ratio:.2f}" for ratio in found)]


def bare_session(path: Path, threads: int) -> tuple[Preprocessing, Run]:
    """Return how images are prepared for a bundle's graph, and its session's own ``run`` on a ready batch."""
    bundle = open_bundle(path)
    content = bundle.read(select(bundle, providers=["CPU"]).artifact)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return bundle.manifest.signature.preprocessing, lambda batch: session.run(names, {"image": batch})


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def imports() -> str:
    """Compare importing the runtime with importing numpy alone, each in a fresh interpreter."""

    def start(module: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    columns = [
        in_turn(start("sys"), start("numpy"), IMPORTS),
        in_turn(start("sys"), start("mtl_deploy.runtime"), IMPORTS),
    ]
    rows = [
        [name, f"{statistics.median(b - a for a, b in zip(*pair, strict=True)) / 1e6:.3f}"]
        for name, pair in zip(("numpy", "mtl_deploy.runtime"), columns, strict=True)
    ]
    return table(["import", "seconds beyond an empty interpreter"], rows)


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Time two functions in turn; return the microseconds of each round."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(3, rounds // 10)):
        first()
        second()
    for turn in range(rounds):
        pair = [(first, times[0]), (second, times[1])]
        for work, into in pair if turn % 2 == 0 else reversed(pair):
            started = time.perf_counter_ns()
            work()
            into.append((time.perf_counter_ns() - started) / 1e3)
    return times


if __name__ == "__main__":
    main()
