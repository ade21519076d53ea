"""The real command's memory on large maps: measured in a process of its own, and what keeps it low, piece by piece."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.calibration.accuracy.evaluate import evaluate, relative_errors
from mtl_deploy.calibration.accuracy.run import run_graph
from mtl_deploy.calibration.data import stored
from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.stored import StoredImages
from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.graph import sizes
from mtl_deploy.calibration.graph.sizes import image_bytes, images_at_once, portions
from mtl_deploy.calibration.int8 import graphs
from mtl_deploy.calibration.int8.graphs import Int8Graphs
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.manifest import MANIFEST
from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.images.loading import prepare
from tests.networks.dense_bundle import dense_graph, dense_signature, write_dense_bundle

_MEASURED = """
import re, sys
from mtl_deploy.calibration.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""
CLASSES = 40


def scenes(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of colour, as no random pixel is like its neighbour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8)
    return np.repeat(np.repeat(blocks, 16, axis=1), 16, axis=2)


def bundle_and_images(folder: Path, count: int, size: tuple[int, int], **options: Any) -> tuple[Path, Path]:
    """Write a bundle of three dense tasks in FP32 and typed FP16, and images as an array."""
    bundle = write_dense_bundle(
        folder / "m.mtl", size=size, classes=CLASSES, precisions=("fp32", "fp16"), separate=False, **options
    )
    model = onnx.load(str(bundle / "fp32.onnx"))
    images = scenes(2, *size, seed=1)
    signature = dense_signature(size=size, classes=CLASSES, **options)
    batch, _ = prepare(images, signature.preprocessing)
    half = to_half(model, observe(model, [batch], threads=1)).model.SerializeToString()
    (bundle / "fp16.onnx").write_bytes(half)
    document = json.loads((bundle / MANIFEST).read_text())
    entry = next(one for one in document["artifacts"] if one["path"] == "fp16.onnx")
    entry |= {"sha256": hashlib.sha256(half).hexdigest(), "size_bytes": len(half)}
    (bundle / MANIFEST).write_text(json.dumps(document))
    np.save(folder / "images.npy", scenes(count, *size))
    return bundle, folder / "images.npy"


def peak_bytes(*arguments: str | Path) -> int:
    """Run ``mtl-calibrate`` in a process of its own and return the largest memory that it had.

    ``ru_maxrss`` would not do: a process begins with that of the one that starts it.
    """
    done = subprocess.run([sys.executable, "-c", _MEASURED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stderr.split()[-1])


@pytest.mark.slow
def test_large_maps_take_little_memory(tmp_path: Path) -> None:
    """At a quarter of the pixels; five graphs with batches of 6 took 1.2 GB."""
    bundle, images = bundle_and_images(tmp_path, 12, (240, 320))
    assert peak_bytes(bundle, "--calibration-data", images, "--threads", "2", "--quiet") < 0.9e9


@pytest.mark.extended
@pytest.mark.parametrize("options", [{}, {"argmax": False}, {"outputs": "logits"}], ids=["maps", "scores", "logits"])
def test_three_dense_tasks_of_forty_classes_take_less_than_3_gb(tmp_path: Path, options: dict[str, Any]) -> None:
    count = 160
    bundle, images = bundle_and_images(tmp_path, count, (480, 640), **options)
    assert count * 480 * 640 * 3 > stored.IN_MEMORY
    assert peak_bytes(bundle, "--calibration-data", images, "--threads", "2", "--quiet") < 3e9
    assert peak_bytes(bundle, "--calibration-data", images, "--evaluate-only", "--threads", "2", "--quiet") < 3e9


def test_batches_are_as_small_as_large_maps_need(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = dense_signature(), dense_signature(size=(480, 640), classes=CLASSES)
    assert images_at_once(dense_graph(small), small, 8) == 8
    assert images_at_once(dense_graph(large), large, 8) == sizes.LARGEST // (4 * CLASSES * 480 * 640) == 5
    assert images_at_once(None, large, 8) == 5
    huge = dense_signature(size=(480, 640), classes=1000)
    assert images_at_once(None, huge, 8) == 1
    assert images_at_once(dense_graph(small), small, 3) == 3


def test_sizes_are_those_of_one_image_at_the_networks_size() -> None:
    signature = dense_signature(size=(36, 52))
    known = image_bytes(onnx.load_from_string(dense_graph(signature)), signature)
    assert (known["convolved"], known["planes"]) == (4 * 8 * 9 * 13, 4 * 3 * 36 * 52)
    assert known["seg_logits"] == 4 * 5 * 9 * 13


@pytest.mark.parametrize("image_input", ["uint8", "float"])
def test_free_sizes_count_as_much_as_the_fixed_ones_of_the_signature(image_input: str) -> None:
    fixed = dense_signature(size=(36, 52), image_input=image_input)
    free = dense_signature(size=(36, 52), image_input=image_input, multiple=4)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(dense_graph(free)))  # as an exporter leaves it
    assert any(side.dim_param for value in model.graph.value_info for side in value.type.tensor_type.shape.dim)
    before = model.SerializeToString()
    assert image_bytes(model, free) == image_bytes(onnx.load_from_string(dense_graph(fixed)), fixed)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("batch", ["n", 4])
def test_windows_of_an_image_count_all_where_they_lie_along_the_batch(batch: str | int) -> None:
    windows = helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["windows_of_all", 49, 3])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["cast", "shape"], ["windows"]),
        ],
        "attention",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 28, 56, 3])],
        [windows],
        [numpy_helper.from_array(np.array([-1, 49, 3]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    one = 4 * 28 * 56 * 3
    assert image_bytes(model, dense_signature(size=(28, 56))) == {"cast": one, "windows": one}


def test_portions_hold_each_tensor_once_and_stay_below_the_limit() -> None:
    known = {"a": 3, "b": 4, "c": 20, "d": 1, "e": 9}
    assert portions(known, [*known, "f"], 10) == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert portions(known, [], 10) == []


def test_small_batches_and_portions_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = dense_signature()
    graph = dense_graph(signature)
    images = scenes(9, 36 + 12, 52 + 12)[:, :36, :52].copy()
    data = CalibrationData(images, {}, "test")

    def results() -> tuple[Any, ...]:
        made = Int8Graphs(graph, images, signature, None, Int8Options(threads=1))
        made.ranges = made.find_ranges()
        built = made.build("cpu", "mse")
        sources = {"fp32": graph, "int8": built.runnable}
        errors = relative_errors(graph, {"int8": built.runnable}, images, signature, threads=1)
        return made.ranges, built.content, evaluate(sources, data, signature, threads=1).matrix.to_dict(), errors

    expected = results()
    monkeypatch.setattr(sizes, "LARGEST", 1)
    assert images_at_once(graph, signature, 8) == 1
    found = results()
    assert found[:2] == expected[:2]
    assert found[2] == expected[2]
    assert found[3]["int8"] == pytest.approx(expected[3]["int8"])
    monkeypatch.setattr(graphs, "_COLLECTED", 1)  # ranges first, with other bins then
    ranges = results()[0]
    for style, methods in expected[0].items():
        for method, tensors in methods.items():
            for name, one in tensors.items():
                near = ranges[style][method][name]
                span = (0.15 if method == "entropy" else 0.002) * (one.high - one.low)  # entropy's minimum is flat
                assert (near.low, near.high) == pytest.approx((one.low, one.high), abs=span)


@pytest.mark.parametrize("kind", ["npy", "folder", "folder sample"])
def test_images_in_a_file_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from PIL import Image

    signature = dense_signature()
    pictures = scenes(70, 48, 64)
    source = tmp_path / "images.npy"
    if kind == "npy":
        np.save(source, pictures)
    else:
        source = tmp_path / "images"
        source.mkdir()
        for position, picture in enumerate(pictures):
            Image.fromarray(picture).save(source / f"{position:03}.png")
        (source / "003.png").write_bytes(b"no image")
    samples = 20 if kind == "folder sample" else None
    in_memory = load_data(source, signature.preprocessing, signature.tasks, samples=samples)
    monkeypatch.setattr(stored, "IN_MEMORY", 1000)
    in_file = load_data(source, signature.preprocessing, signature.tasks, samples=samples)
    assert isinstance(in_memory.images, np.ndarray)
    assert isinstance(in_file.images, StoredImages)
    assert (in_file.digest, in_file.warnings) == (in_memory.digest, in_memory.warnings)
    np.testing.assert_array_equal(np.asarray(in_file.images), in_memory.images)
    ours, theirs = (each.select(each.parts((0.5, 0.5)) == 1) for each in (in_file, in_memory))
    assert isinstance(ours.images, StoredImages)
    assert ours.digest == theirs.digest
    graph = dense_graph(signature)
    found, expected = (run_graph(graph, each.images, signature.preprocessing, threads=1) for each in (ours, theirs))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_stored_images_are_indexed_like_an_array() -> None:
    images = scenes(10, 16, 32)
    kept = StoredImages(images.shape)
    for position, image in enumerate(images):
        kept[position] = image
    assert (kept.shape, kept.size, len(kept), kept.dtype) == (images.shape, images.size, 10, images.dtype)
    for key in (slice(2, 5), slice(None, None, 3), slice(8, 20), slice(5, 5), 3, -1):
        np.testing.assert_array_equal(kept[key], images[key])
    chosen = np.array([7, 1, 1, 4])
    part = kept[chosen]
    assert isinstance(part, StoredImages)
    np.testing.assert_array_equal(part[:], images[chosen])
    np.testing.assert_array_equal(part[np.array([False, True, True, False])][:], images[chosen[1:3]])
    assert [one.tolist() for one in part] == [one.tolist() for one in images[chosen]]
    with pytest.raises(IndexError):
        kept[10]


def test_threads_read_stored_images_at_once() -> None:
    kept = StoredImages((50, 64, 64, 3))
    for position in range(50):
        kept[position] = np.full((64, 64, 3), position, np.uint8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda turn: np.unique(kept[turn % 50]).tolist(), range(3000)))
    assert found == [[turn % 50] for turn in range(3000)]


def test_a_file_of_images_that_cannot_be_kept_is_an_error_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = StoredImages((4, 16, 32, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(WorkError, match=r"File too large.*set TMPDIR to another folder"):
            StoredImages((4, 16, 32, 3))
        with pytest.raises(WorkError, match=r"File too large.*set TMPDIR to another folder"):
            kept[3] = np.zeros((16, 32, 3), np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept._file.truncate(0)
    with pytest.raises(WorkError, match="became shorter"):
        kept[0]
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, kept._file.fileno())
    os.close(folder)
    with pytest.raises(WorkError, match=r"cannot be kept there.*Is a directory"):
        kept[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(WorkError, match=r"absent: .*No such file.*set TMPDIR to another folder"):
        StoredImages((4, 16, 32, 3))
