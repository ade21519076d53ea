"""INT8 on a processor: how long graphs take, timed in turn, how far their answers are from FP32's, and which kernels run.

    python examples/fresh_networks.py --out fresh --seeds 0
    python examples/int8_paths.py fresh/*-0.mtl --threads 2

Each bundle's FP32 graph is calibrated on crops of scikit-learn's two photographs and measured on other crops. The graphs are

- ``int8-cpu``, in ONNX Runtime and, where it is installed, in OpenVINO;
- ``attention too``: the same with the products of queries, keys and values on integers, where the network has some;
- ``quantize_static``: ONNX Runtime's own quantizer, with ranges from the same crops;
- ``int8``: the graph for TensorRT, in OpenVINO, which runs it as well.

Times are ratios to FP32 in the same library, one image at a time: in each round every graph runs, and the time that a tenth of the
rounds stay below counts, because other programs only ever add to it. Errors are mean differences from FP32 over what FP32's answers
vary by from image to image, one number per task. ``--kernels`` lists what ONNX Runtime executes and how many milliseconds each
operator takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.calibration.int8.graphs import Int8Graphs
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.backends.onnxruntime.profile import ProfiledBackend
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.errors import BackendError

CALIBRATION, HELD_OUT, BATCH, CALLS = 64, 48, 4, 3
Graphs = dict[str, bytes]
Answers = dict[str, np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", help="bundles with fp32.onnx for images of one size")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--method", default="minmax", help="how ranges are chosen (default: minmax)")
    parser.add_argument("--kernels", action="store_true", help="also list the time per operator")
    arguments = parser.parse_args()
    rows = []
    for path in arguments.bundles:
        for row in measure(path, arguments):
            rows.append(row)
            print("  ".join(row), flush=True)
    print()
    print(table(["network", "graph", "library", "time / FP32", "error per task"], rows))
    return 0


def measure(path: Path, arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Yield one row per graph and library."""
    bundle = open_bundle(path)
    preprocessing, threads = bundle.manifest.signature.preprocessing, arguments.threads
    images, held_out = crops(CALIBRATION, preprocessing.image_shape, 1), crops(HELD_OUT, preprocessing.image_shape, 2)
    content = (path / "fp32.onnx").read_bytes()
    made = Int8Graphs(
        content, images, bundle.manifest.signature, None, Int8Options(method=arguments.method, threads=threads)
    )
    made.ranges = made.find_ranges()
    pieces = [piece for _, piece in zip(range(8), batches(images, preprocessing, BATCH), strict=False)]
    ours, style = made.build("cpu", arguments.method), made.build("tensorrt", arguments.method)
    graphs = {"fp32": content, "int8-cpu": ours.content}
    if (attention := with_attention(ours.content, pieces)) is not None:
        graphs["attention too"] = attention
    graphs["quantize_static"] = by_onnx_runtime(content, pieces)
    inputs = list(batches(held_out, preprocessing, BATCH))
    truth = answers(content, inputs, threads)
    judged = graphs | {"int8": style.runnable}
    errors = {name: apart(truth, answers(judged[name], inputs, threads)) for name in judged if name != "fp32"}
    ratios = timed(graphs, lambda graph: on_onnx_runtime(graph, threads), inputs[0][:1], arguments.rounds)
    for name in list(graphs)[1:]:
        yield [path.stem, name, "ONNX Runtime", f"{ratios[name]:.2f}", errors[name]]
    try:
        others = {"fp32": content, "int8-cpu": ours.content, "int8": style.content}
        ratios = timed(others, lambda graph: on_openvino(graph, threads), inputs[0][:1], arguments.rounds)
    except BackendError as error:
        print(f"{path.stem}: {error}")
    else:
        for name in ("int8-cpu", "int8"):
            yield [path.stem, name, "OpenVINO", f"{ratios[name]:.2f}", errors[name]]
    if arguments.kernels:
        for name in ("fp32", "int8-cpu"):
            print(f"{path.stem}, {name}: {kernels(graphs[name], inputs[0][:1], threads)}")


def crops(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return crops of two photographs, ``(N, H, W, 3) uint8``."""
    from sklearn.datasets import load_sample_images

    photographs, random = load_sample_images().images, np.random.default_rng(seed)
    found = []
    for position in range(count):
        photograph = photographs[position % len(photographs)]
        high, wide = photograph.shape[:2]
        side = int(random.integers(high // 4, high))
        top, left = int(random.integers(high - side + 1)), int(random.integers(wide - side + 1))
        crop = Image.fromarray(photograph[top : top + side, left : left + side])
        found.append(np.asarray(crop.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)))
    return np.stack(found)


def by_onnx_runtime(content: bytes, pieces: list[np.ndarray]) -> bytes:
    """Quantize with ONNX Runtime's own quantizer: U8 activations, weights with one scale per channel, minimum and maximum."""

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pieces)

        def get_next(self) -> dict[str, np.ndarray] | None:
            piece = next(self.left, None)
            return None if piece is None else {INPUT_NAME: piece}

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(source, result, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
        return result.read_bytes()


def with_attention(content: bytes, pieces: list[np.ndarray]) -> bytes | None:
    """Write Q/DQ on both sides of each product of two activations; None if there is none."""
    model = onnx.load_from_string(content)
    weights = {each.name for each in model.graph.initializer}
    weights |= {node.output[0] for node in model.graph.node if node.input and node.input[0] in weights}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and not weights & set(n.input)]
    if not products:
        return None
    names = {name: f"{name}/rounded" for node in products for name in node.input}
    observed = observe(model, pieces)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for name in names.keys() & set(node.output):
            low, high = min(observed[name].minimum, 0.0), max(observed[name].maximum, 0.0)
            scale = np.float32((high - low) / 255)
            ends = {f"{name}/step": scale, f"{name}/offset": np.uint8(round(-low / scale))}
            model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in ends.items())
            nodes.append(helper.make_node("QuantizeLinear", [name, *ends], [f"{name}/integers"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}/integers", *ends], [names[name]]))
    for node in products:
        node.input[:] = [names[name] for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def on_onnx_runtime(graph: bytes, threads: int) -> Backend:
    return OnnxRuntimeBackend(lambda: graph, providers=["CPU"], threads=threads, spinning=False)


def on_openvino(graph: bytes, threads: int) -> Backend:
    from mtl_deploy.runtime.backends.openvino.backend import OpenVinoBackend

    return OpenVinoBackend(lambda: graph, threads=threads)


def answers(graph: bytes, inputs: list[np.ndarray], threads: int) -> Answers:
    """Return the outputs for all images, in float64."""
    with closing(on_onnx_runtime(graph, threads)) as backend:
        names = [spec.name for spec in backend.outputs]
        found = [backend.run({INPUT_NAME: piece}, names) for piece in inputs]
    return {name: np.concatenate([one[name] for one in found]).astype(np.float64) for name in names}


def apart(truth: Answers, found: Answers) -> str:
    """Return each task's mean error over the standard deviation of FP32's answers."""
    errors = [np.abs(found[name] - one).mean() / max(one.std(axis=0).mean(), 1e-12) for name, one in truth.items()]
    return ", ".join(f"{error:.3f}" for error in errors)


def timed(graphs: Graphs, load: Callable[[bytes], Backend], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Return each graph's time over the first one's, of the time that a tenth of the rounds stay below."""
    with ExitStack() as stack:
        backends = {name: stack.enter_context(closing(load(graph))) for name, graph in graphs.items()}
        outputs = [spec.name for spec in next(iter(backends.values())).outputs]
        times = defaultdict(list)
        for turn in range(rounds + 3):
            for name in list(backends) if turn % 2 else list(backends)[::-1]:
                backends[name].run({INPUT_NAME: image}, outputs)  # the caches are another graph's
                started = time.perf_counter()
                for _ in range(CALLS):
                    backends[name].run({INPUT_NAME: image}, outputs)
                times[name].append(time.perf_counter() - started)
    undisturbed = {name: float(np.percentile(times[name][3:], 10)) for name in graphs}
    return {name: taken / next(iter(undisturbed.values())) for name, taken in undisturbed.items()}


def kernels(graph: bytes, image: np.ndarray, threads: int) -> str:
    """Return the operators that ONNX Runtime executes, with their number and time, the longest first."""
    backend = ProfiledBackend(lambda: graph, providers=["CPU"], threads=threads, spinning=False)
    names = [spec.name for spec in backend.outputs]
    for _ in range(25):
        backend.run({INPUT_NAME: image}, names)
    nodes, spent, counted = backend.graph.nodes, defaultdict(float), Counter()
    for node, milliseconds in zip(nodes, np.median(backend.node_times(5), axis=0), strict=True):
        spent[node.op_type] += float(milliseconds)
        counted[node.op_type] += 1
    order = sorted(spent, key=spent.__getitem__, reverse=True)
    return ", ".join(f"{counted[name]} {name} {spent[name]:.2f} ms" for name in order[:8])


if __name__ == "__main__":
    raise SystemExit(main())
