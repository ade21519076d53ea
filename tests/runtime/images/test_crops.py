"""Boxes cut out of a frame: the pixels are those of the crops, the results are the frame's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtl_deploy.runtime import ImageError, OptionError, Task, load
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.images.crops import prepare_boxes
from mtl_deploy.runtime.images.loading import prepare, prepare_all
from mtl_deploy.runtime.kinds.detection.detections import in_image
from mtl_deploy.runtime.kinds.detection.layout import Layout
from mtl_deploy.runtime.predictions.decoding import decode
from tests.networks.dense_bundle import write_dense_bundle

RNG = np.random.default_rng(6)
FRAME = RNG.integers(0, 256, (72, 104, 3), dtype=np.uint8)
BOXES = [(10, 20, 40, 30), (0, 0, 104, 72), (60.2, 30.7, 20.1, 41)]
SPANS = [(20, 50, 10, 50), (0, 72, 0, 104), (30, 72, 60, 81)]  # top, bottom, left, right


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_boxes_are_the_crops_in_one_batch(fit: Any) -> None:
    preprocessing = Preprocessing(24, 20, fit=fit, resize_to=(26,) if fit == "crop" else ())
    found = prepare_boxes(FRAME, BOXES, 0, preprocessing)
    crops = [FRAME[top:bottom, left:right] for top, bottom, left, right in SPANS]
    expected = prepare_all(crops, preprocessing)
    assert len(found.batches) == 1
    assert not found.single
    np.testing.assert_array_equal(found.batches[0][0], expected.batches[0][0])
    for placement, plain, (top, _, left, _) in zip(found.placements, expected.placements, SPANS, strict=True):
        assert (placement.original, placement.box) == (plain.original, plain.box)
        assert (placement.frame, placement.origin) == ((72, 104), (top, left))


def test_free_sizes_make_a_batch_per_size() -> None:
    found = prepare_boxes(
        FRAME, [(0, 0, 32, 32), (0, 0, 64, 32), (5, 5, 33, 31)], 0, Preprocessing(32, 32, multiple=32)
    )
    assert [(tensor.shape, places) for tensor, places in found.batches] == [
        ((2, 32, 32, 3), (0, 2)),
        ((1, 32, 64, 3), (1,)),
    ]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_single_image_is_a_frame(count: int, tmp_path: Path) -> None:
    preprocessing = Preprocessing(24, 20, (0.5,) * count, (0.25,) * count)
    pixels = RNG.integers(0, 256, (40, 50, count), dtype=np.uint8)
    box, crop = [(3, 5, 30, 20)], pixels[5:25, 3:33]
    expected, _ = prepare(crop, preprocessing)
    stream = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if count == 1 else pixels)
    picture.save(stream, "PNG")
    (tmp_path / "frame.png").write_bytes(stream.getvalue())
    np.save(tmp_path / "frame.npy", pixels)
    ways: list[Any] = [
        pixels,
        memoryview(pixels),
        picture,
        stream.getvalue(),
        tmp_path / "frame.png",
        str(tmp_path / "frame.npy"),
    ]
    for way in ways:
        np.testing.assert_array_equal(prepare_boxes(way, box, 0, preprocessing).batches[0][0], expected)
    if count == 3:
        swapped = prepare_boxes(pixels[..., ::-1], box, 0, preprocessing, "bgr")
        np.testing.assert_array_equal(swapped.batches[0][0], expected)


def test_boxes_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(FRAME).save(tmp_path / "frame.png", exif=exif)
    upright = np.rot90(FRAME, -1)
    found = prepare_boxes(tmp_path / "frame.png", [(4, 60, 30, 40)], 0, Preprocessing(24, 20))
    np.testing.assert_array_equal(found.batches[0][0], prepare(upright[60:100, 4:34], Preprocessing(24, 20))[0])
    assert found.placements[0].frame == (104, 72)


@given(st.floats(-50, 150), st.floats(-50, 150), st.floats(0.1, 200), st.floats(0.1, 200), st.floats(0, 2))
def test_a_box_with_its_margin_is_cut_where_it_lies_in_the_frame(
    x: float, y: float, width: float, height: float, margin: float
) -> None:
    """Every pixel that the box touches, and no other."""
    columns, rows = np.arange(104), np.arange(72)
    left, right = x - margin * width, x + width + margin * width
    top, bottom = y - margin * height, y + height + margin * height
    inside = (
        np.flatnonzero((rows + 1 > top) & (rows < bottom)),
        np.flatnonzero((columns + 1 > left) & (columns < right)),
    )
    if not all(map(len, inside)):
        with pytest.raises(ImageError, match=r"boxes\[0\]: .* lies outside the frame of 72x104"):
            prepare_boxes(FRAME, [(x, y, width, height)], margin, Preprocessing(8, 8))
        return
    (placement,) = prepare_boxes(FRAME, [(x, y, width, height)], margin, Preprocessing(8, 8)).placements
    assert placement.origin == (inside[0][0], inside[1][0])
    assert placement.original == (len(inside[0]), len(inside[1]))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0, 0, 5, 5), (1, 2, 3)], r"boxes\[1\] is \(1, 2, 3\); give x, y, width and height"),
        ((0, 0, 5, 5), r"boxes\[0\] is 0; give"),
        ([(0, 0, 0, 5)], r"boxes\[0\]: .*must be above 0"),
        ([(0, 0, 5, -5)], "must be above 0"),
        ([(float("nan"), 0, 5, 5)], "must be above 0"),
        ([("a", 0, 5, 5)], "give x, y"),
        ([(104, 0, 5, 5)], r"lies outside the frame of 72x104"),
    ],
)
def test_what_is_no_box_in_the_frame_is_named(boxes: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        prepare_boxes(FRAME, boxes, 0, Preprocessing(8, 8))


@pytest.mark.parametrize(
    "frame", [[FRAME], FRAME[None], [], 7, (FRAME, FRAME)], ids=["list", "batch", "empty", "int", "tuple"]
)
def test_boxes_are_of_one_image(frame: Any) -> None:
    with pytest.raises(ImageError, match="with boxes; they are cut out of one image"):
        prepare_boxes(frame, BOXES, 0, Preprocessing(8, 8))


@pytest.mark.parametrize("margin", [-0.1, float("nan"), "0.2", None])
def test_a_margin_is_a_share(margin: Any) -> None:
    with pytest.raises(OptionError, match="a share of the box's size"):
        prepare_boxes(FRAME, BOXES, margin, Preprocessing(8, 8))


@pytest.mark.parametrize("classes", [5, 256])
@pytest.mark.parametrize("outputs", ["decoded", "logits"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_dense_maps_have_the_frames_size_and_place(fit: Any, outputs: str, classes: int, tmp_path: Path) -> None:
    options = {"resize_to": (40,)} if fit == "crop" else {}
    bundle = write_dense_bundle(tmp_path / "a.mtl", fit=fit, outputs=outputs, classes=classes, batch_max=2, **options)
    with load(bundle, layout="bgr") as model:
        found = model.predict(FRAME[..., ::-1], boxes=BOXES)  # three boxes in batches of two
        crops = model.predict([FRAME[top:bottom, left:right] for top, bottom, left, right in SPANS], layout="rgb")
    assert len(found) == 3
    for of_box, of_crop, (top, bottom, left, right) in zip(found, crops, SPANS, strict=True):
        part = (slice(top, bottom), slice(left, right))
        around = np.ones((72, 104), bool)
        around[part] = False
        seg, depth, normals = (of_box[name].value for name in ("seg", "depth", "normals"))
        assert seg.shape == depth.shape == (72, 104)
        np.testing.assert_array_equal(depth[part], of_crop["depth"].value)
        np.testing.assert_array_equal(normals[part], of_crop["normals"].value)
        assert np.isnan(depth[around]).all()
        assert (normals[around] == 0).all()
        unseen = of_box["seg"].unseen
        assert unseen == (255 if classes == 5 else -1)
        assert (seg[around] == unseen).all()
        theirs = of_crop["seg"].value.astype(int)
        if of_crop["seg"].unseen is not None:
            theirs[theirs == of_crop["seg"].unseen] = unseen
        np.testing.assert_array_equal(seg[part], theirs)


def test_no_boxes_are_no_results_and_a_margin_needs_some(tmp_path: Path) -> None:
    with load(write_dense_bundle(tmp_path / "a.mtl")) as model:
        assert model.predict(FRAME, boxes=[]) == []
        assert len(model.predict(FRAME, boxes=np.array(BOXES), margin=0.25)) == 3
        with pytest.raises(OptionError, match=r"margin 0\.2 is cut out around boxes, and there are none"):
            model.predict(FRAME, margin=0.2)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_points_and_boxes_are_in_the_frames_pixels(fit: Any) -> None:
    """What lies at a place of the network's input goes to the same place as in the crop, moved by the crop's origin."""
    preprocessing = Preprocessing(24, 20, fit=fit, resize_to=(26,) if fit == "crop" else ())
    (of_frame,) = prepare_boxes(FRAME, BOXES[2:], 0, preprocessing).placements
    (of_crop,) = prepare_all([FRAME[30:72, 60:81]], preprocessing).placements
    rows = np.array([[8, 10, 12, 15, 0.9, 0, 9, 11, 9, 12, 0.5]], np.float32)
    layout = Layout(classes=1, landmarks=1, keypoints=1)
    moved, plain = in_image(rows, layout, of_frame), in_image(rows, layout, of_crop)
    assert len(moved) == len(plain) == 1
    np.testing.assert_allclose(moved.boxes, plain.boxes + np.float32([60, 30, 60, 30]), rtol=1e-6)
    assert moved.landmarks is not None
    assert moved.keypoints is not None
    np.testing.assert_allclose(moved.landmarks, np.asarray(plain.landmarks) + np.float32([60, 30]), rtol=1e-6)
    np.testing.assert_allclose(moved.keypoints, np.asarray(plain.keypoints) + np.float32([60, 30, 0]), rtol=1e-6)
    vector = Task.from_dict(
        {"name": "v", "kind": "vector", "size": 3, "names": ["a.x", "a.y", "yaw"], "frame": "input"}
    )
    there, here = (
        decode(vector, np.array([[9, 11, 5]], np.float32), "decoded", [p])[0].value for p in (of_frame, of_crop)
    )
    np.testing.assert_allclose(there.numbers, here.numbers + np.float32([60, 30, 0]), rtol=1e-6)
    points = Task.from_dict({"name": "p", "kind": "keypoints", "size": 1, "stride": 4})
    there, here = (
        decode(points, np.array([[[9, 11, 0.7]]], np.float32), "decoded", [p])[0].value for p in (of_frame, of_crop)
    )
    np.testing.assert_allclose(there.points, here.points + np.float32([60, 30]), rtol=1e-6)
