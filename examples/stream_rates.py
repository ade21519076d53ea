"""What a slow rate for one task saves: a stream with every task for every frame against some with that task for every tenth.

    python examples/stream_rates.py                          # makes a network with an expensive head, and measures it
    python examples/stream_rates.py model.mtl --slow race

The network has a MobileNetV2 as its backbone, two tasks on its last features (30 Hz), and a segmentation behind a decoder that
takes features of six stages (3 Hz); it is exported with ``--split``. The slow rate is measured in two ways: with graphs that are
cut to the due tasks, and, where the bundle has them, with the backbone and the heads as parts.

All streams get the same frames and run in turn, round by round, so that changes of the machine's speed affect all equally. A
stream has no more frames than it can take (``drop="wait"``). The processor time of the whole process is counted, decoding and
resizing of frames too, and given per second of a camera with 30 frames a second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime import Model, OptionError, load
from mtl_deploy.runtime.console.command import table

RATE = 30  # frames a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="default: one that is made for this")
    parser.add_argument("--slow", metavar="TASK", help="the task that runs for every --every-th frame")
    parser.add_argument(
        "--every", type=int, default=10, help="frames from one to the next (default: 10, as 3 Hz of 30)"
    )
    parser.add_argument("--frames", type=int, default=60, help="in each round, per stream")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", default="720x1280", metavar="HEIGHTxWIDTH", help="of the frames")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.bundle is not None and arguments.slow is None:
        parser.error("name the task that is slow with --slow")
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or make(Path(folder), arguments.threads)
        measure(bundle, arguments.slow or "segmentation", arguments)


def measure(bundle: Path, slow: str, arguments: argparse.Namespace) -> None:
    """Run the streams in turn and print what each takes."""
    height, width = map(int, arguments.size.split("x"))
    frames = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    rates = {slow: arguments.every}
    with ExitStack() as stack:
        whole = stack.enter_context(load(bundle, threads=arguments.threads, spinning=False))
        streams: list[tuple[str, Model, Mapping[str, int]]] = [
            (f"all tasks at {RATE} Hz", whole, {}),
            (f"{slow} at {RATE / arguments.every:g} Hz, cut graphs", whole, rates),
        ]
        try:
            parts = stack.enter_context(load(bundle, threads=arguments.threads, spinning=False, split=True))
            streams.append((f"{slow} at {RATE / arguments.every:g} Hz, in parts", parts, rates))
        except OptionError as error:
            print(error)
        for _, model, every in streams:  # so that nothing is timed that happens once
            run(model, every, frames, arguments.every)
        found: list[list[tuple[float, float]]] = [[] for _ in streams]
        for turn in range(arguments.rounds):
            for which in range(len(streams)) if turn % 2 == 0 else reversed(range(len(streams))):
                _, model, every = streams[which]
                found[which].append(run(model, every, frames, arguments.frames))
    rows = []
    for (name, _, _), own in zip(streams, found, strict=True):
        ratio = statistics.median(mine[1] / base[1] for mine, base in zip(own, found[0], strict=True))
        wall, cpu = (statistics.median(each) for each in zip(*own, strict=True))
        rows.append([name, f"{cpu * RATE:.3f}", f"{ratio:.3f}", f"{1e3 * wall:.2f}"])
    print(table(["stream", f"processor seconds per second at {RATE} Hz", "of the first", "ms per frame"], rows))
    print(f"medians of {arguments.rounds} rounds with {arguments.frames} frames each")


def run(model: Model, every: Mapping[str, int], frames: np.ndarray, count: int) -> tuple[float, float]:
    """Pass frames through a stream of their own; return seconds and processor seconds per frame."""
    failed: list[Exception] = []
    started, busy = time.perf_counter(), time.process_time()
    with model.stream(
        every, drop="wait", callback=lambda result: failed.append(result.error) if result.error is not None else None
    ) as stream:
        for number in range(count):
            stream.submit(frames[number % len(frames)])
    passed, used = time.perf_counter() - started, time.process_time() - busy
    if failed:
        raise failed[0]
    return passed / count, used / count


def make(folder: Path, threads: int) -> Path:
    """Export the network, untrained, with its parts."""
    import torch

    from mtl_deploy.export.cli import main as export

    weights, target = folder / "scene.pt", folder / "scene.mtl"
    torch.manual_seed(0)
    torch.save(scene().state_dict(), weights)
    tasks = ["kind=multiclass", "size=regression", "segmentation=segmentation"]
    options = ["--model", f"{Path(__file__).stem}:scene", *(word for task in tasks for word in ("--task", task))]
    options += ["--precision", "fp32", "--no-separate", "--split", "--engine", "none", "--threads", str(threads)]
    sys.path.insert(0, str(Path(__file__).parent))
    if export([str(weights), *options, "-o", str(target)]):
        raise SystemExit("the export failed")
    return target


def scene() -> Any:
    """Return the network: ``kind`` (10 classes) and ``size`` of the last features, ``segmentation`` (19 classes) of the decoder."""
    import torch
    from torch import nn

    from mtl_deploy.export.networks.refinenet import RefineNet

    class Scene(RefineNet):
        def __init__(self) -> None:
            super().__init__({"segmentation": 19}, decoder=128)
            self.kind, self.size = nn.Linear(320, 10), nn.Linear(320, 1)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.encode(image)
            pooled = features[-1].mean((2, 3))
            maps = self.heads["segmentation"](self.decode(features))
            return {"kind": self.kind(pooled), "size": self.size(pooled), "segmentation": maps}

    return Scene()


if __name__ == "__main__":
    main()
