"""What a slow rate for one task saves: a stream with every task for every frame against one with that task for every tenth.

    python examples/stream_rates.py model.mtl --slow race

Both streams get the same frames and run in turn, round by round, so that changes of the machine's speed affect both equally. A
stream has no more frames than it can take (``drop="wait"``), so the figures are milliseconds of work per frame, at the full rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_deploy.runtime import Model, load
from mtl_deploy.runtime.console.command import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slow", required=True, metavar="TASK", help="the task that runs for every --every-th frame")
    parser.add_argument(
        "--every", type=int, default=10, help="frames from one to the next (default: 10, as 3 Hz of 30)"
    )
    parser.add_argument("--frames", type=int, default=60, help="in each round, per stream")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", default="720x1280", metavar="HEIGHTxWIDTH", help="of the frames")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    frames = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    rates: list[tuple[str, Mapping[str, int]]] = [
        ("all tasks, every frame", {}),
        (f"{arguments.slow} for every {arguments.every}. frame", {arguments.slow: arguments.every}),
    ]
    with load(arguments.bundle, threads=arguments.threads) as model:
        for _, every in rates:  # so that nothing is timed that happens once
            run(model, every, frames, arguments.every)
        times: list[list[float]] = [[], []]
        for turn in range(arguments.rounds):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                times[which].append(run(model, rates[which][1], frames, arguments.frames))
    rows = [
        [name, f"{statistics.median(found):.2f}", f"{1e3 / statistics.median(found):.1f}"]
        for (name, _), found in zip(rates, times, strict=True)
    ]
    print(table(["stream", "milliseconds per frame", "frames per second"], rows))
    ratio = statistics.median(one / other for one, other in zip(*times, strict=True))
    print(f"median of {arguments.rounds} pairs: {ratio:.3f} times as many frames")


def run(model: Model, every: Mapping[str, int], frames: np.ndarray, count: int) -> float:
    """Pass frames through a stream of their own; return milliseconds per frame."""
    failed: list[Exception] = []
    started = time.perf_counter()
    with model.stream(
        every, drop="wait", callback=lambda result: failed.append(result.error) if result.error is not None else None
    ) as stream:
        for number in range(count):
            stream.submit(frames[number % len(frames)])
    passed = time.perf_counter() - started
    if failed:
        raise failed[0]
    return passed / count * 1e3


if __name__ == "__main__":
    main()
