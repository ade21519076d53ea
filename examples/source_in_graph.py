"""What ``mtl-export --source`` puts into a graph, on this processor: whether it equals Pillow, its work, and the time it takes.

    python examples/source_in_graph.py

Frames are converted and resized by the graph's nodes on ONNX Runtime, and by the runtime with Pillow (after OpenCV's conversion of
nv12 and yuyv), in turn, one thread each. A graph that resizes is for a GPU: on a processor Pillow is faster, and the ratio says by
how much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import onnx_ir as ir
import onnxruntime

from mtl_deploy.calibration.data.images import generated_images
from mtl_deploy.export.graph.cost import border_multiply_adds
from mtl_deploy.export.graph.sizes import at_size
from mtl_deploy.export.graph.source.frames import border_alone
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.source import LAYOUTS, Source
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.images.loading import prepare_all
from mtl_deploy.runtime.images.seen import seen_pixels

FRAMES = ((480, 640), (720, 1280), (1080, 1920))
IMAGES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", default="224x224", metavar="HxW", help="the network's input")
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="of the frames (default: bgr and nv12)")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    height, width = (int(side) for side in arguments.image_size.split("x"))
    taken = [Source(*size, layout) for layout in arguments.layout or ("bgr", "nv12") for size in FRAMES]
    rows = [measured(Preprocessing(height, width, source=source), arguments.rounds) for source in taken]
    head = ["frame", "layout", "largest difference", "multiply-adds", "Pillow, ms", "the graph, times that"]
    print(table(head, rows))


def measured(preprocessing: Preprocessing, rounds: int) -> list[str]:
    """Return a row: the largest difference, in levels of 255, over generated frames and one of noise; times are of one frame."""
    source = preprocessing.source
    assert source is not None
    noise = np.random.default_rng(0).integers(0, 256, (1, *source.shape), dtype=np.uint8)
    frames = np.concatenate([generated_images(IMAGES - 1, preprocessing, seed=0), noise])
    model = border_alone(preprocessing)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    expected = seen_pixels(frames, preprocessing).transpose(0, 3, 1, 2).astype(np.float32)
    off = np.abs(np.asarray(session.run(None, {"image": frames})[0]) - expected).max()
    pillow, graph = in_turn(
        lambda: on_the_processor(frames[0], preprocessing), lambda: session.run(None, {"image": frames[:1]}), rounds
    )
    work = border_multiply_adds(at_size(model).graph)
    return [source.size, source.layout, f"{off:.0f}", f"{work / 1e9:.3f} G", f"{pillow:.1f}", f"{graph / pillow:.1f}"]


def on_the_processor(frame: np.ndarray, preprocessing: Preprocessing) -> object:
    """Do what an application does without ``--source``: OpenCV's conversion of luma and chroma, then the runtime's resizing."""
    source = preprocessing.source
    assert source is not None
    if source.layout == "nv12":
        frame = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    elif source.layout == "yuyv":
        frame = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUY2)
    return prepare_all(frame, preprocessing.seen, "bgr" if source.layout == "bgr" else "rgb")


def in_turn(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the milliseconds of two calls, timed in turn: of the fastest round, since what other programs add would count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, found in zip((one, other), times, strict=True):
            start = time.perf_counter()
            call()
            found.append(1e3 * (time.perf_counter() - start))
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    main()
