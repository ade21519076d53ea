"""Dense tasks from the image to a value for each of its pixels, with the real ONNX Runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import ImageError, Prediction, TaskError, load
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement, place
from mtl_deploy.runtime.predictions.decoding import decode
from mtl_deploy.runtime.predictions.sampling import Sampling
from tests.networks.dense_bundle import LABELS, SIZE, STRIDE, dense_signature, write_dense_bundle

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
PHOTO = RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8)
FORMS: dict[str, dict[str, Any]] = {
    "decoded": {},
    "at the stride": {"upsample": False},
    "logits in the graph": {"argmax": False},
    "raw": {"outputs": "logits"},
    "many classes": {"classes": 300},
    "float input": {"image_input": "float"},
    "letterbox": {"fit": "letterbox"},
    "free sizes": {"multiple": 4},
}


def interpolate(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(values))[None]
    resized: np.ndarray = torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[
        0
    ].numpy()
    return resized


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_outputs_have_the_shapes_and_types_that_the_signature_says(tmp_path: Path, options: dict[str, Any]) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl", **options)) as model:
        found = model(IMAGES)
        signature = model.signature
        for name, values in found.items():
            assert values.shape == (3, *signature.sample_shape(name))
            assert values.dtype == signature.dtype(name)
        buffers = {name: np.empty_like(values) for name, values in found.items()}
        again = model(IMAGES, out=buffers)
    for name, values in found.items():
        assert again[name] is buffers[name]
        np.testing.assert_array_equal(buffers[name], values)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_predictions_have_the_originals_size_whatever_the_graph_gives(tmp_path: Path, options: dict[str, Any]) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl", **options)) as model:
        classes = model.signature.task("seg").size
        for image in (PHOTO, IMAGES[0]):
            found = model.predict(image)
            height, width = image.shape[:2]
            assert found["seg"].value.shape == (height, width)
            assert found["seg"].value.dtype == (np.uint8 if classes <= 256 else np.int32)
            assert found["seg"].value.max() < classes
            assert found["depth"].value.shape == (height, width)
            assert found["depth"].value.dtype == np.float32
            assert 0.5 <= found["depth"].value.min() <= found["depth"].value.max() <= 10
            assert found["normals"].value.shape == (height, width, 3)
            np.testing.assert_allclose(np.linalg.norm(found["normals"].value, axis=2), 1, atol=1e-5)


def test_decoding_outside_the_graph_gives_what_the_graph_gives(tmp_path: Path) -> None:
    with (
        load(write_dense_bundle(tmp_path / "a.mtl")) as inside,
        load(write_dense_bundle(tmp_path / "b.mtl", outputs="logits")) as outside,
    ):
        for one, other in zip(inside.predict(IMAGES), outside.predict(IMAGES), strict=True):
            assert (one["seg"].value == other["seg"].value).mean() > 0.999  # ties may fall the other way
            np.testing.assert_allclose(one["depth"].value, other["depth"].value, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(one["normals"].value, other["normals"].value, atol=1e-3)


def test_raw_outputs_are_interpolated_once_and_decoded_then(tmp_path: Path) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl", outputs="logits")) as model:
        raw, found = model(PHOTO), model.predict(PHOTO)
    size = PHOTO.shape[:2]
    logits = interpolate(raw["seg"][0], size)
    assert (logits.argmax(0) == found["seg"].value).mean() > 0.999
    depth = interpolate(raw["depth"][0], size)[0] * 2.0 + 0.25
    np.testing.assert_allclose(found["depth"].value, depth.clip(0.5, 10), rtol=1e-4)
    vectors = interpolate(raw["normals"][0], size).transpose(1, 2, 0)
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    np.testing.assert_allclose(found["normals"].value, unit, atol=1e-3)


def test_decoded_maps_are_brought_back_by_the_kinds_own_rule(tmp_path: Path) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl")) as model:
        maps, found = model(PHOTO), model.predict(PHOTO)
    size = PHOTO.shape[:2]
    rows = ((np.arange(size[0]) + 0.5) * SIZE[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * SIZE[1] / size[1]).astype(int)
    np.testing.assert_array_equal(found["seg"].value, maps["seg"][0][rows][:, columns])
    np.testing.assert_allclose(found["depth"].value, interpolate(maps["depth"], size)[0], rtol=1e-4)


def test_an_image_of_the_networks_size_costs_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl")) as model:
        given: list[np.ndarray] = []
        gave: list[dict[str, np.ndarray]] = []
        run = model.backend.run

        def watch(inputs: Any, *rest: Any, **others: Any) -> Any:
            given.append(inputs["image"])
            gave.append(run(inputs, *rest, **others))
            return gave[-1]

        monkeypatch.setattr(model.backend, "run", watch)
        found = model.predict(IMAGES[1])
        model.predict(IMAGES)
    assert all(np.shares_memory(tensor, IMAGES) for tensor in given)
    for name, prediction in found.items():
        assert np.shares_memory(prediction.value, gave[0][name])


def test_a_letterbox_is_undone(tmp_path: Path) -> None:
    image = np.zeros((20, 104, 3), np.uint8)  # half the size is 10x52, in the middle of 36 rows
    image[:, 52:] = 255
    with load(write_dense_bundle(tmp_path / "a.mtl", fit="letterbox")) as model:
        maps, found = model(image), model.predict(image)
    inner = maps["depth"][0, 13:23]
    np.testing.assert_allclose(found["depth"].value, interpolate(inner[None], (20, 104))[0], rtol=1e-4)
    assert set(np.unique(found["seg"].value)) <= set(np.unique(maps["seg"][0, 13:23]))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_free_sizes_take_images_of_several_sizes(tmp_path: Path, fit: str) -> None:
    sizes = [(36, 52), (61, 47), (36, 52), (8, 9), (3, 3)]
    images = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    with load(write_dense_bundle(tmp_path / "a.mtl", fit=fit, multiple=4)) as model:
        together = model.predict(images)
        alone = [model.predict(image) for image in images]
        assert model(images[0])["seg"].shape == (1, 36, 52)
        with pytest.raises(ImageError, match="one call takes one size"):
            model(images)
    for one, other, size in zip(together, alone, sizes, strict=True):
        assert one["seg"].value.shape == size
        np.testing.assert_array_equal(one["seg"].value, other["seg"].value)
        np.testing.assert_allclose(one["depth"].value, other["depth"].value, rtol=1e-5)


@pytest.mark.parametrize("image_input", ["uint8", "float"])
def test_a_ready_array_that_is_no_multiple_is_refused(tmp_path: Path, image_input: str) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl", multiple=4, image_input=image_input)) as model:
        ready = np.zeros((1, 34, 52, 3), np.uint8) if image_input == "uint8" else np.zeros((1, 3, 34, 52), np.float32)
        for call in (model, model.predict):
            with pytest.raises(ImageError, match="height and width must be multiples of 4"):
                call(ready)
        assert (
            len(model.predict(np.ascontiguousarray(ready[:, :, :32]) if image_input == "float" else ready[:, :32])) == 1
        )


def test_a_subset_of_tasks_and_a_padded_batch(tmp_path: Path) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl", batch=2), tasks=["normals", "seg"]) as model:
        found = model.predict([PHOTO, IMAGES[0], PHOTO])
        assert [sorted(row) for row in found] == [["normals", "seg"]] * 3
        assert found[0] == found[2]
        assert set(model.predict(PHOTO, tasks=["seg"])) == {"seg"}


@pytest.mark.parametrize(
    ("name", "buffer", "message"),
    [
        ("seg", np.zeros((3, *SIZE), np.int32), r"out\['seg'\] is int32 \(3, 36, 52\); expected uint8 \(3, 36, 52\)"),
        ("depth", np.zeros((3, 1, *SIZE), np.float32), r"expected float32 \(3, 36, 52\)"),
        ("normals", np.zeros((3, *SIZE, 3), np.float32), r"expected float32 \(3, 3, 36, 52\)"),
    ],
)
def test_buffers_that_do_not_fit(tmp_path: Path, name: str, buffer: np.ndarray, message: str) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl")) as model, pytest.raises(ImageError, match=message):
        model(IMAGES, out={name: buffer})


def test_onnx_runtime_writes_large_outputs_straight_into_the_callers_buffers(tmp_path: Path) -> None:
    """The process needs less memory than without a buffer, by about the output's size."""
    bundle = write_dense_bundle(tmp_path / "a.mtl", classes=100, argmax=False, multiple=4, separate=False)
    code = """
import re, sys
import numpy as np
from mtl_deploy.runtime import load
def peak():  # not ru_maxrss, which begins with that of the process that starts this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
side = 640
with load(sys.argv[1], tasks=["seg"], threads=1, providers=["CPU"]) as model:
    image = np.zeros((1, side, side, 3), np.uint8)
    model(image[:, :64, :64])
    buffer = np.full((1, 100, side, side), -1, np.float32)
    before = peak()
    if sys.argv[2] == "given":
        address = buffer.ctypes.data
        found = model(image, out={"seg": buffer})["seg"]
        assert found is buffer and found.ctypes.data == address and not (found == -1).any()
    else:
        found = model(image)["seg"]
    print((peak() - before) / buffer.nbytes)
"""
    grown = {}
    for buffer in ("given", "none"):
        command = [sys.executable, "-c", code, str(bundle), buffer]
        grown[buffer] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown["given"] < grown["none"] - 0.7


def test_predictions_say_themselves_in_a_line_and_in_a_summary() -> None:
    labels = np.array([[[0, 0, 0, 1], [1, 2, 3, 0]]], np.uint8)
    seg = decode(Task("seg", "segmentation", labels=LABELS, size=5), labels, "decoded")[0]
    bare = decode(Task("seg", "segmentation", size=5), labels, "decoded")[0]
    assert str(seg) == "wall 50.0 %, floor 25.0 %, chair 12.5 %, 1 more"
    assert str(bare) == "class 0: 50.0 %, class 1: 25.0 %, class 2: 12.5 %, 1 more"
    assert seg.to_dict() == {"shape": [2, 4], "shares": {"wall": 0.5, "floor": 0.25, "chair": 0.125, "table": 0.125}}
    metres = np.array([[[1, 2, np.nan, 6.5]]], np.float32)
    depth = decode(Task("depth", "depth", unit="metres", size=1), metres, "decoded")[0]
    assert str(depth) == "1 to 6.5 metres, median 2 (NaN or infinite numbers)"
    numbers = {"shape": [1, 4], "min": 1.0, "median": 2.0, "max": 6.5, "unit": "metres"}
    assert depth.to_dict() == numbers | {"finite": False}
    nothing = decode(Task("depth", "depth", size=1), np.full((1, 1, 2), np.inf, np.float32), "decoded")[0]
    assert (str(nothing), nothing.to_dict()["min"]) == ("no finite depth (NaN or infinite numbers)", None)
    up = np.zeros((1, 3, 2, 2), np.float32)
    up[:, 1] = 1
    normals = decode(Task("normals", "normals", size=3), up, "decoded")[0]
    assert str(normals) == "mean direction (0.00, 1.00, 0.00)"
    assert json.loads(json.dumps(normals.to_dict())) == {"shape": [2, 2, 3], "mean_direction": [0.0, 1.0, 0.0]}
    assert normals.label is normals.probabilities is normals.probability is None


def test_dense_predictions_compare_by_their_maps() -> None:
    one, same, other = (Prediction("a", "depth", np.array([[value]], np.float32)) for value in (1, 1, 2))
    assert one == same
    assert one != other


def test_raw_depth_may_lack_its_channel() -> None:
    task = Task("depth", "depth", size=1, stride=4, scale=2.0)
    raw = RNG.random((2, 3, 5), dtype=np.float32)
    for one, other in zip(decode(task, raw, "logits"), decode(task, raw[:, None], "logits"), strict=True):
        assert one.value.shape == (12, 20)
        np.testing.assert_array_equal(one.value, other.value)


def test_normals_of_no_length_stay_finite() -> None:
    found = decode(Task("normals", "normals", size=3, stride=2), np.zeros((1, 3, 2, 2), np.float32), "logits")[0]
    np.testing.assert_array_equal(found.value, np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    ("grid", "target"), [((9, 13), (36, 52)), ((9, 13), (37, 51)), ((36, 52), (17, 23)), ((1, 3), (5, 2))]
)
def test_interpolation_is_pytorchs_at_odd_sizes(grid: tuple[int, int], target: tuple[int, int]) -> None:
    values = RNG.random((2, *grid), dtype=np.float32)
    found = Sampling(grid, ImagePlacement(target, grid, (0, 0, *grid))).bilinear(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, interpolate(values, target), atol=1e-5)


def test_a_border_has_no_share_in_what_lies_beside_it() -> None:
    placement = place(10, 30, Preprocessing(40, 40, fit="letterbox"))
    for grid in ((40, 40), (10, 10)):
        values = np.full(grid, 100, np.float32)
        rows = slice(placement.box[0] * grid[0] // 40, -(-(placement.box[0] + placement.box[2]) * grid[0] // 40))
        values[rows] = 1
        np.testing.assert_array_equal(Sampling(grid, placement).bilinear(values), np.ones((10, 30)))
        np.testing.assert_array_equal(Sampling(grid, placement).nearest(values.astype(np.uint8)), np.ones((10, 30)))


def test_signatures_say_what_a_graph_gives() -> None:
    decoded, raw = dense_signature(), dense_signature(outputs="logits")
    assert decoded.sample_shape("depth") == SIZE
    assert decoded.sample_shape("depth", 40, 60) == (40, 60)
    assert raw.sample_shape("depth") == (1, SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    assert dense_signature(upsample=False).sample_shape("normals") == (3, 9, 13)
    assert dense_signature(argmax=False).sample_shape("seg") == (5, *SIZE)
    assert [str(decoded.dtype(name)) for name in ("seg", "depth", "normals")] == ["uint8", "float32", "float32"]
    assert (raw.dtype("seg"), dense_signature(classes=257).dtype("seg")) == (np.float32, np.int32)
    with pytest.raises(TaskError, match="does not divide an image of 38x52"):
        raw.sample_shape("depth", 38, 52)
    with pytest.raises(TaskError, match="no task is called 'age'"):
        raw.dtype("age")
    with pytest.raises(TaskError, match="does not divide the image size 38x52"):
        dense_signature(size=(38, 52))
    with pytest.raises(TaskError, match="multiples of 6; use a multiple of 4"):
        dense_signature(size=(36, 48), multiple=6)


def test_the_code_of_the_docs_runs(tmp_path: Path) -> None:
    from PIL import Image

    page = (Path(__file__).parents[3] / "docs" / "runtime.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n([^`]*scene\.mtl[^`]*)```", page)
    write_dense_bundle(tmp_path / "scene.mtl")
    Image.fromarray(PHOTO).save(tmp_path / "room.jpg")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r".+ %(, \d more)? \| .+ metres, median .+\n", result.stdout)


def test_the_overhead_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "dense_overhead.py"
    arguments = [str(write_dense_bundle(tmp_path / "a.mtl")), "--rounds", "3", "--threads", "1"]
    result = subprocess.run([sys.executable, example, *arguments], capture_output=True, text=True, check=True)
    assert "predict over the bare session, median of 3 pairs:" in result.stdout
