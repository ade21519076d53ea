"""What the runtime adds to the time of an ONNX Runtime call, and what importing it takes.

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

from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.selection import select

ROUNDS = 300
IMPORTS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(calls(arguments.bundle, arguments.threads))
    print()
    print(imports())


def calls(path: Path, threads: int) -> str:
    """Compare ``model(batch)`` with the session's own ``run`` on the same graph and batch."""
    bundle = open_bundle(path)
    content = bundle.read(select(bundle, providers=["CPU"]).artifact)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    preprocessing = bundle.manifest.signature.preprocessing
    batch = np.random.default_rng(0).integers(0, 256, (1, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    with load(path, providers=["CPU"], threads=threads) as model:
        bare, ours = in_turn(lambda: session.run(names, {"image": batch}), lambda: model(batch), ROUNDS)
        added = statistics.median(b - a for a, b in zip(bare, ours, strict=True))
    rows = [
        ["InferenceSession.run", f"{statistics.median(bare):.1f}"],
        ["model(batch)", f"{statistics.median(ours):.1f}"],
    ]
    return f"{table(['call', 'median, microseconds'], rows)}\nadded, median of {ROUNDS} pairs: {added:.1f} microseconds"


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
