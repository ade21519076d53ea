"""What comes from elsewhere while a model runs: an application's signal handler, memory that ends, buffers given twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import load
from mtl_deploy.runtime.errors import ImageError, MtlError
from mtl_deploy.runtime.images.loading import original_pixels
from mtl_deploy.runtime.signals import handlers_error

MakeBundle = Callable[..., Path]


class LateError(Exception):
    """An application's own timeout."""


class Handler:
    def method(self, number: int, frame: FrameType | None) -> None:
        raise LateError

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise LateError


def function(number: int, frame: FrameType | None) -> None:
    raise LateError


def anything(*arguments: Any) -> None:
    raise LateError


HANDLERS = {"function": function, "method": Handler().method, "object": Handler(), "arguments": anything,
            "partial": partial(function)}  # fmt: skip


@pytest.fixture
def alarm() -> Any:
    """A function that lets a handler run again and again."""
    former = signal.getsignal(signal.SIGALRM)

    def start(handler: Any, seconds: float = 0.002) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def interrupted(work: Callable[[], Any], alarm: Callable[[], None]) -> None:
    for _ in range(100):  # Python drops what a handler raises inside a destructor
        alarm()
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            work()


@pytest.mark.parametrize("name", HANDLERS)
def test_what_a_handler_raises_passes_through(
    name: str, make_bundle: MakeBundle, tmp_path: Path, alarm: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(
        tmp_path / "a.tiff", compression="tiff_lzw"
    )
    images = np.zeros((16, 8, 8, 3), np.uint8)
    with load(make_bundle(work=30), threads=1) as model:
        for work in (
            partial(model, images),
            lambda: original_pixels(tmp_path / "a.tiff"),
        ):
            for _ in range(25):
                with pytest.raises(LateError):
                    interrupted(work, partial(alarm, HANDLERS[name]))
            model(images)


def test_what_libraries_raise_is_no_handlers(make_bundle: MakeBundle, tmp_path: Path) -> None:
    def raised(work: Callable[[], Any]) -> BaseException:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is looked at
            return error
        raise AssertionError

    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    for work in (
        lambda: 1 / 0,
        lambda: Image.open(tmp_path / "a.png"),
        lambda: function(14, None),
        lambda: np.zeros(-1),
    ):
        assert handlers_error(raised(work)) is None
    assert isinstance(handlers_error(raised(lambda: function(14, sys._getframe()))), LateError)


MEMORY = """
import resource, sys
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.errors import DeviceMemoryError
shape = numpy_helper.from_array(np.array([1 << 14, 1 << 16], np.int64), "shape")
nodes = [helper.make_node("Expand", ["x", "shape"], ["wide"]), helper.make_node("ReduceMax", ["wide"], ["y"], keepdims=0)]
info = helper.make_tensor_value_info
values = [info("x", TensorProto.FLOAT, [1])], [info("y", TensorProto.FLOAT, [])]
graph = helper.make_graph(nodes, "g", *values, [shape])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
content = model.SerializeToString()
backend = OnnxRuntimeBackend(lambda: content, threads=1)
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData:"))) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (256 << 20),) * 2)
try:
    backend.run({"x": np.zeros(1, np.float32)}, ["y"])
except DeviceMemoryError as error:
    print("memory:", error)
"""


def test_memory_that_ends_is_called_so() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("memory: ONNX Runtime: out of memory"), done.stdout + done.stderr


def test_one_buffer_for_two_tasks_is_refused(make_bundle: MakeBundle) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with load(make_bundle()) as model:
        one = np.zeros((2, 1), np.float32)
        with pytest.raises(ImageError, match=r"out\['age'\] and out\['gender'\] share memory"):
            model(images, out={"age": one, "gender": one})
        whole = np.zeros(7, np.float32)
        with pytest.raises(ImageError, match="share memory"):
            model(images, out={"age": whole[:2].reshape(2, 1), "race": whole[1:].reshape(2, 3)})
        found = model(
            images, out={"age": whole[:1].reshape(1, 1).repeat(2, 0), "gender": one, "race": whole[1:].reshape(2, 3)}
        )
        assert found["gender"] is one
        pixels = np.zeros(2 * 8 * 8 * 3 + 8, np.uint8)
        inside = pixels[:8].view(np.float32).reshape(2, 1)
        with pytest.raises(ImageError, match="the images"):
            model(pixels[: images.size].reshape(images.shape), out={"age": inside})
        model(images, out={"age": whole[:2].reshape(2, 1), "gender": whole[2:4].reshape(2, 1)})


@pytest.mark.parametrize("damage", ["type", "shape", "sequence", "metadata"])
def test_a_graph_that_is_not_as_its_metadata_says_is_refused(
    damage: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(make_bundle() / "fp32.onnx")
    graph = model.graph
    output = next(value for value in graph.output if value.name == "race")
    if damage == "type":
        made = next(node for node in graph.node if "race" in node.output)
        made.output[0] = "former"
        graph.node.append(helper.make_node("Cast", ["former"], ["race"], to=TensorProto.DOUBLE))
        output.type.tensor_type.elem_type = TensorProto.DOUBLE
    elif damage == "shape":
        made = next(node for node in graph.node if "race" in node.output)
        made.output[0] = "former"
        graph.node.append(helper.make_node("Concat", ["former", "former"], ["race"], axis=1))
        output.type.tensor_type.shape.dim[1].dim_value = 6
    elif damage == "sequence":
        made = next(node for node in graph.node if "race" in node.output)
        made.output[0] = "former"
        graph.node.append(helper.make_node("SequenceConstruct", ["former"], ["race"]))
        output.CopyFrom(helper.make_tensor_sequence_value_info("race", TensorProto.FLOAT, None))
    content = model.SerializeToString()
    if damage == "metadata":
        content = content.replace(b"years", b"y\xff\xfers")
    (tmp_path / "lone.onnx").write_bytes(content)
    with pytest.raises(MtlError, match=r"lone\.onnx: .*(type|metadata|cannot load)"):
        load(tmp_path / "lone.onnx")
