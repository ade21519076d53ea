"""Graphs on the real OpenVINO; ``tests/runtime/test_model.py`` has what a model promises on every backend."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.runtime import BackendError, BundleError, OptionError, RunError, load
from mtl_deploy.runtime.backends.openvino import graph as graph_module
from mtl_deploy.runtime.backends.openvino.backend import OpenVinoBackend
from mtl_deploy.runtime.backends.openvino.graph import MOST_SHAPES
from tests.networks.dense_bundle import write_dense_bundle

pytest.importorskip("openvino")

MakeBundle = Callable[..., Path]
RNG = np.random.default_rng(0)


def images(count: int, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def graph_file(
    nodes: list[Any], outputs: list[Any], shape: list[Any], weights: dict[str, np.ndarray] | None = None
) -> bytes:
    """Return a graph of one float input ``image``."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)


def test_it_says_what_runs_and_why(make_bundle: MakeBundle) -> None:
    import openvino

    with load(make_bundle(), backend="openvino") as model:
        assert model.backend.name == "openvino"
        assert model.backend.details == f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
        assert model.why == "asked for"


def test_many_batch_sizes_run_on_a_few_compiled_graphs(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(work=2)
    with load(bundle, backend="openvino") as model, load(bundle, providers=["CPU"]) as reference:
        for count in (*range(1, MOST_SHAPES + 4), 1, 2):
            batch = images(count, seed=count)
            expected = reference(batch)
            assert_same(model(batch), expected)
            out = {"age": np.full((count, 1), -1, np.float32)}
            assert model(batch, out=out)["age"] is out["age"]
            np.testing.assert_allclose(out["age"], expected["age"], rtol=1e-4)
        backend = model.backend
        assert isinstance(backend, OpenVinoBackend)
        (graph,) = backend._graphs.values()
        assert len(graph._shaped) == MOST_SHAPES
        assert graph._any is not None


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
def test_free_sizes_and_maps_are_those_of_onnx_runtime(tmp_path: Path, outputs: str) -> None:
    bundle = write_dense_bundle(tmp_path / "dense.mtl", multiple=4, outputs=outputs)
    sizes = [(36, 52), (40, 40), (8, 64), (36, 52), (12, 12), (16, 20), (20, 16), (24, 24), (40, 40)]
    with load(bundle, backend="openvino") as model, load(bundle, providers=["CPU"]) as reference:
        for number, (height, width) in enumerate(sizes):
            batch = images(1 + number % 2, height, width, seed=number)
            expected = reference(batch)
            assert_same(model(batch), expected)
            assert_same(model(batch, tasks=["depth"]), {"depth": expected["depth"]})
        several = [images(1, *size, seed=9)[0] for size in sizes]
        for one, other in zip(model.predict(several), reference.predict(several), strict=True):
            np.testing.assert_array_equal(one["seg"].value, other["seg"].value)
            np.testing.assert_allclose(one["depth"].value, other["depth"].value, rtol=1e-4, atol=1e-5)


def test_what_it_returns_is_the_callers(tmp_path: Path) -> None:
    """Neither is an array overwritten later, nor does the backend keep one alive, such as one in shared memory."""
    bundle = write_dense_bundle(tmp_path / "dense.mtl")
    with load(bundle, backend="openvino", contexts=1) as model:
        first = model(images(1, 36, 52))
        kept = {name: array.copy() for name, array in first.items()}
        memory = bytearray(first["depth"].nbytes)
        mapped = np.frombuffer(memory, np.float32).reshape(first["depth"].shape)
        assert model(images(1, 36, 52, seed=1), out={"depth": mapped})["depth"] is mapped
        written = bytes(memory)
        del mapped
        memory.clear()  # BufferError while anything points to it
        again = model(images(1, 36, 52, seed=1))["depth"]
        assert again.tobytes() == written
        for name, array in kept.items():
            np.testing.assert_array_equal(first[name], array)


def test_inputs_and_buffers_may_lie_anywhere_and_be_read_only(make_bundle: MakeBundle) -> None:
    with load(make_bundle(image_input="float"), backend="openvino") as model:
        batch = RNG.random((2, 3, 8, 8), dtype=np.float32)
        expected = model(batch)
        raw = np.zeros(batch.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(batch.shape)  # an odd address
        raw[...] = batch
        raw.flags.writeable = False
        odd = np.zeros(2 * 3 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
        found = model(raw, out={"race": odd})
        assert found["race"] is odd
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_calls_from_many_threads_wait_for_a_request(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(work=4)
    batches = [images(1 + seed % 3, seed=seed) for seed in range(6)]
    with load(bundle, backend="openvino", contexts=2) as model:
        expected = [model(batch) for batch in batches]
        wrong: list[str] = []

        def work(number: int) -> None:
            for _ in range(20):
                found = model(batches[number], tasks=["race", "age"])
                if not all(np.array_equal(found[task], expected[number][task]) for task in found):
                    wrong.append(f"thread {number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_closing_ends_calls_that_wait(make_bundle: MakeBundle) -> None:
    with load(make_bundle(), backend="openvino", contexts=1) as model:
        batch = images(1)
        model(batch)
        backend = model.backend
        assert isinstance(backend, OpenVinoBackend)
        (graph,) = backend._graphs.values()
        compiled = graph._for(batch.shape)
        held = [compiled._acquire() for _ in range(compiled._limit)]
        errors: list[Exception] = []

        def call() -> None:
            try:
                model(batch)
            except RunError as error:
                errors.append(error)

        waiting = threading.Thread(target=call)
        waiting.start()
        while not compiled._condition._waiters:  # type: ignore[attr-defined]
            pass
        model.close()
        waiting.join(20)
        for request in held:
            compiled._release(request)
        assert [str(error) for error in errors] == ["the model is closed; load it again"]
        with pytest.raises(RunError, match="closed"):
            backend.warm(["age"])


def test_outputs_that_are_one_tensor_or_the_input_are_told_apart() -> None:
    """A library may merge what is equal; every name still gets its values."""
    content = graph_file(
        [
            helper.make_node("Mul", ["image", "two"], ["double"]),
            helper.make_node("Identity", ["double"], ["same"]),
            helper.make_node("Identity", ["image"], ["input"]),
            helper.make_node("Identity", ["constant"], ["fixed"]),
        ],
        [value("same", ["n", 3]), value("double", ["n", 3]), value("input", ["n", 3]), value("fixed", [2])],
        ["n", 3],
        {"two": np.array(2, np.float32), "constant": np.array([5, 7], np.float32)},
    )
    backend = OpenVinoBackend(lambda: content)
    for count in (1, 4):
        batch = RNG.random((count, 3), dtype=np.float32)
        found = backend.run({"image": batch}, ["input", "fixed", "double", "same"])
        assert list(found) == ["input", "fixed", "double", "same"]
        np.testing.assert_array_equal(found["input"], batch)
        np.testing.assert_array_equal(found["double"], 2 * batch)
        np.testing.assert_array_equal(found["same"], 2 * batch)
        np.testing.assert_array_equal(found["fixed"], [5, 7])
        assert list(backend.run({"image": batch}, ["same"])) == ["same"]


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "int8", "float16"])
def test_types_of_outputs_are_the_graphs(kind: str) -> None:
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    content = graph_file(
        [helper.make_node("Cast", ["image"], ["out"], to=element)], [value("out", ["n", 4], element)], ["n", 4]
    )
    backend = OpenVinoBackend(lambda: content)
    batch = np.array([[0, 1, 2, 100]], np.float32)
    assert backend.outputs[0].dtype == np.dtype(kind)
    found = backend.run({"image": batch}, ["out"])["out"]
    assert found.dtype == np.dtype(kind)
    np.testing.assert_array_equal(found.astype(np.float32), batch)


def test_what_is_no_graph_is_a_bundle_error_whatever_else_openvino_reads(tmp_path: Path) -> None:
    network = b"<?xml version='1.0'?><net name='a' version='11'><layers/></net>"  # OpenVINO's own format
    for content in (b"", b"no graph", network):
        with pytest.raises(BundleError, match=r"x\.onnx: not an ONNX file"):
            OpenVinoBackend(lambda content=content: content, where="x.onnx")


def test_an_operator_that_it_lacks_is_told_with_the_way_on() -> None:
    node = helper.make_node("Nonsense", ["image"], ["out"], domain="elsewhere")
    made = helper.make_graph([node], "g", [value("image", [1, 3])], [value("out", [1, 3])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    content = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    with pytest.raises(BackendError, match=r"OpenVINO .* cannot compile it .*; run it on ONNX Runtime"):
        OpenVinoBackend(lambda: content)


def test_images_that_a_graph_does_not_take_are_an_error_of_ours() -> None:
    nodes = [helper.make_node("MatMul", ["image", "weight"], ["out"])]
    weight = {"weight": np.ones((3, 2), np.float32)}
    backend = OpenVinoBackend(lambda: graph_file(nodes, [value("out", ["n", 2])], ["n", "m"], weight))
    with pytest.raises(BackendError, match=r"cannot compile it for images \(1, 4\)"):
        backend.run({"image": np.ones((1, 4), np.float32)}, ["out"])
    assert backend.run({"image": np.ones((1, 3), np.float32)}, ["out"])["out"].tolist() == [[3, 3]]


def test_a_buffer_of_another_shape_is_refused_before_anything_is_written() -> None:
    nodes = [helper.make_node("Identity", ["image"], ["out"])]
    backend = OpenVinoBackend(lambda: graph_file(nodes, [value("out", ["n", 3])], ["n", 3]))
    small = np.zeros((1, 2), np.float32)
    with pytest.raises(RunError, match=r"'out' is float32 \(1, 3\), and its buffer float32 \(1, 2\)"):
        backend.run({"image": np.ones((1, 3), np.float32)}, ["out"], {"out": small})


def test_memory_that_runs_out_is_told_apart(monkeypatch: pytest.MonkeyPatch, make_bundle: MakeBundle) -> None:
    from mtl_deploy.runtime import DeviceMemoryError

    with load(make_bundle(), backend="openvino") as model:

        def full(*_: object) -> None:
            raise RuntimeError("Exception from src/x.cpp:1:\nstd::bad_alloc")

        monkeypatch.setattr(graph_module.CompiledGraph, "run", full)
        with pytest.raises(DeviceMemoryError, match=r"OpenVINO: out of memory \(std::bad_alloc\)"):
            model(images(1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "GPU"}, BackendError, "device='GPU': graphs run on OpenVINO's CPU device only"),
        ({"device": "NPU"}, BackendError, "CPU device only"),
        ({"device": 0}, OptionError, "device=0 is CUDA's number of a GPU"),
        ({"mode": "fast"}, OptionError, "mode='fast': use latency or throughput"),
        ({"arithmetic": "int4"}, OptionError, "use one of f32, bf16, f16"),
        ({"contexts": 0}, OptionError, "contexts=0"),
        ({"providers": ["CPU"]}, OptionError, "providers are ONNX Runtime's"),
    ],
    ids=str,
)
def test_options_that_it_cannot_meet(
    make_bundle: MakeBundle, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    bundle = make_bundle()
    with pytest.raises(error, match=message):
        load(bundle, backend="openvino", **options)
    with load(bundle, backend="openvino", device="CPU") as model:
        assert model.backend.name == "openvino"


@pytest.mark.parametrize("options", [{"arithmetic": "bf16"}, {"device": "GPU"}], ids=str)
def test_its_options_are_refused_elsewhere(make_bundle: MakeBundle, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="backend='openvino'"):
        load(make_bundle(), **options)


def test_numbers_are_computed_in_float32_unless_asked(make_bundle: MakeBundle) -> None:
    import openvino

    bundle = make_bundle(work=3)
    batch = images(2)
    with load(bundle, backend="openvino") as model, load(bundle, providers=["CPU"]) as reference:
        exact = reference(batch)
        np.testing.assert_allclose(model(batch)["age"], exact["age"], rtol=2e-6)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="this processor does not compute in it"):
            load(bundle, backend="openvino", arithmetic="bf16")
        return
    with load(bundle, backend="openvino", arithmetic="bf16") as model:
        assert model.backend.details.endswith(", bf16")
        found = model(batch)["age"]
        assert not np.allclose(found, exact["age"], rtol=1e-6)
        np.testing.assert_allclose(found, exact["age"], rtol=0.05)


def test_freeing_it_on_another_thread_leaves_the_process_able_to_take_signals(make_bundle: MakeBundle) -> None:
    """OpenVINO's plugin sets a stack for signals on the thread that starts it, and unmaps it where it is freed."""
    code = """
import faulthandler, gc, os, signal, sys, threading
import numpy as np
from mtl_deploy.runtime import load

faulthandler.enable()
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
models = [load(sys.argv[1], backend="openvino")]
models[0](np.zeros((1, 8, 8, 3), np.uint8))

def free():
    models.pop().close()
    gc.collect()

thread = threading.Thread(target=free)
thread.start()
thread.join()
for _ in range(10):
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(got))
"""
    command = [sys.executable, "-c", code, str(make_bundle())]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert (result.stdout, result.stderr) == ("10\n", "")
