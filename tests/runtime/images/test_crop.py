"""``Resize`` and ``CenterCrop``: pixels equal to torchvision's to the bit, and maps that come back to the original image."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from mtl_deploy.calibration.data.dense_labels import at_size
from mtl_deploy.calibration.data.images import load_images
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import load_pixels, prepare, prepare_all
from mtl_deploy.runtime.images.resize import resize
from mtl_deploy.runtime.show.picture import show
from tests.networks.dense_bundle import LABELS, SIZE, write_dense_bundle

RNG = np.random.default_rng(0)
SHAPES = [
    (375, 500),  # a landscape
    (500, 375),
    (256, 256),
    (224, 224),
    (90, 130),  # smaller than the crop: enlarged first
    (130, 90),
    (333, 500),  # 256 * 500 / 333 is not whole
    (1000, 999),
    (37, 800),
    (800, 37),
    (257, 383),  # an odd difference to the crop
]
MODES: Any = ("bilinear", "bicubic", "nearest")


def torchvisions(image: Image.Image, crop: tuple[int, int], resize_to: tuple[int, ...], mode: str) -> np.ndarray:
    """Return what the library's own transforms make of a PIL image."""
    size = resize_to[0] if len(resize_to) == 1 else resize_to
    steps = Compose([Resize(size, interpolation=InterpolationMode(mode)), CenterCrop(crop)])
    return np.asarray(steps(image))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixels_are_torchvisions_to_the_bit(shape: tuple[int, int], mode: Any, tmp_path: Path) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    for crop, resize_to in (((224, 224), (256,)), ((224, 224), (224,)), ((299, 299), (342,)), ((160, 225), (232,))):
        preprocessing = Preprocessing(*crop, fit="crop", resize_to=resize_to, interpolation=mode)
        expected = torchvisions(image, crop, resize_to, mode)
        np.testing.assert_array_equal(load_pixels(image, preprocessing)[0], expected)
        np.testing.assert_array_equal(prepare(tmp_path / "a.png", preprocessing)[0][0], expected)
        np.testing.assert_array_equal(load_images(tmp_path, preprocessing).array[0], expected)


def test_tensors_come_close_with_antialiasing_and_not_without() -> None:
    """What docs/export.md says of networks that were trained on tensors."""
    pixels = RNG.integers(0, 256, (375, 500, 3), dtype=np.uint8)
    ours = load_pixels(Image.fromarray(pixels), Preprocessing(64, 64, fit="crop", resize_to=(64,)))[0].astype(int)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    apart = {}
    for antialias in (True, False):
        resized = CenterCrop(64)(Resize(64, antialias=antialias)(tensor)).permute(1, 2, 0).numpy()
        apart[antialias] = np.abs(ours - resized).mean()
    assert apart[True] < 0.5
    assert apart[False] > 10


SIDES = st.integers(1, 150)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.lists(SIDES, min_size=1, max_size=2), st.sampled_from(MODES))
def test_pixels_are_torchvisions_at_any_size(
    height: int, width: int, high: int, wide: int, resize_to: list[int], mode: Any
) -> None:
    """Crops larger than the image among them: torchvision puts black around it."""
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    preprocessing = Preprocessing(high, wide, fit="crop", resize_to=tuple(resize_to), interpolation=mode)
    expected = torchvisions(Image.fromarray(pixels), (high, wide), tuple(resize_to), mode)
    found, placement = load_pixels(Image.fromarray(pixels), preprocessing)
    np.testing.assert_array_equal(found, expected)
    # without Pillow: the same place, and what the resizing promises
    from_array, same = load_pixels(pixels, preprocessing)
    assert same == placement
    if mode == "nearest":
        np.testing.assert_array_equal(from_array, expected)
    elif mode == "bilinear":
        assert np.abs(from_array.astype(int) - expected).max() <= 1
    canvas = np.zeros_like(expected)
    placement.paste(resize(pixels, *placement.box[2:], mode), canvas)
    np.testing.assert_array_equal(from_array, canvas)


def test_a_strip_that_would_fill_the_memory_is_refused_and_left_out(tmp_path: Path) -> None:
    preprocessing = Preprocessing(224, 224, fit="crop", resize_to=(256,))
    strip = np.zeros((1, 5000, 3), np.uint8)
    Image.fromarray(strip).save(tmp_path / "strip.png")
    Image.fromarray(strip[:, :500]).save(tmp_path / "wide.png")
    for image in (strip, Image.fromarray(strip), tmp_path / "strip.png"):
        with pytest.raises(ImageError, match="1x5000 becomes 256x1280000"):
            prepare(image, preprocessing)
    loaded = load_images(tmp_path, preprocessing)
    assert [path.name for path in loaded.paths] == ["wide.png"]
    assert "before its centre is cut out" in loaded.skipped[tmp_path / "strip.png"]


@pytest.mark.parametrize("mode", ["bicubic", "nearest"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_other_fits_take_the_interpolation_too(fit: Any, mode: Any) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    found, placement = load_pixels(image, Preprocessing(40, 40, fit=fit, interpolation=mode))
    top, left, height, width = placement.box
    expected = np.asarray(image.resize((width, height), Image.Resampling[mode.upper()]))
    np.testing.assert_array_equal(found[top : top + height, left : left + width], expected)
    from_array = load_pixels(np.asarray(image), Preprocessing(40, 40, fit=fit, interpolation=mode))[0]
    np.testing.assert_array_equal(from_array, found)


def test_a_batch_of_the_networks_size_is_ready_and_an_image_of_it_is_not() -> None:
    preprocessing = Preprocessing(32, 32, fit="crop", resize_to=(40,))
    image = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    batch = np.stack([image, image])
    assert np.shares_memory(prepare(batch, preprocessing)[0], batch)
    assert not prepare_all(batch, preprocessing).placements[0].bordered
    expected = torchvisions(Image.fromarray(image), (32, 32), (40,), "bilinear")
    assert np.abs(prepare(image, preprocessing)[0][0].astype(int) - expected).max() <= 1
    assert np.abs(prepare([image], preprocessing)[0][0].astype(int) - expected).max() <= 1


def test_records_come_back_and_those_of_earlier_releases_still_do() -> None:
    for made in (
        Preprocessing(),
        Preprocessing(fit="crop", resize_to=(256,), interpolation="bicubic"),
        Preprocessing(fit="crop", resize_to=(256, 300), interpolation="nearest"),
    ):
        assert Preprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    old = {
        "height": 8,
        "width": 9,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "input": "uint8",
        "resize": "bilinear",
        "channels": "RGB",
    }
    assert Preprocessing.from_dict(old) == Preprocessing(8, 9, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fit": "crop"}, "shorter side before the crop"),
        ({"fit": "crop", "resize_to": (1, 2, 3)}, "shorter side"),
        ({"fit": "crop", "resize_to": (0,)}, "shorter side"),
        ({"fit": "letterbox", "resize_to": (256,)}, "only fit 'crop'"),
        ({"fit": "crop", "resize_to": (256,), "multiple": 32}, "a crop has one size"),
        ({"interpolation": "lanczos"}, "choose bilinear or bicubic or nearest"),
        ({"mean": (123, 117, 104)}, r"mean 0\.482353,0\.458824,0\.407843 and std 0\.229,0\.224,0\.225"),
        (
            {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            r"0\.485,0\.456,0\.406 and std 0\.229,0\.224,0",
        ),
        ({"mean": (123, 117, 104), "std": (1, 1, 1)}, r"std 0\.00392157,0\.00392157,0\.00392157"),
        ({"std": (58.395, 57.12, 57.375)}, r"mean 0\.485,0\.456,0\.406 and std 0\.229,0\.224,0\.225$"),
        ({"mean": (0, 0, 0), "std": (255, 255, 255)}, "mean 0,0,0 and std 1,1,1"),
        ({"mean": (float("nan"), 0, 0)}, "must be a number"),
        ({"std": (float("inf"), 1, 1)}, "greater than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Preprocessing(**values)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0, 0, 0), (1, 1, 1)),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),  # a network that takes pixels from 0 to 255
        ((123.68 / 255, 116.78 / 255, 103.94 / 255), (1 / 255, 1 / 255, 1 / 255)),
        ((1, 1, 1), (2, 2, 2)),
        ((-0.5, 0, 0), (0.01, 0.01, 0.01)),
    ],
)
def test_unusual_normalisations_are_taken(mean: Any, std: Any) -> None:
    made = Preprocessing(4, 4, mean=mean, std=std, input="float")
    image = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    expected = (image / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(prepare(image, made)[0][0], expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-4)


# Dense tasks: maps at the original's size


def seen(shape: tuple[int, int], crop: tuple[int, int], resize_to: int) -> np.ndarray:
    """Which pixels of an image have their centre in the crop, by torchvision's own arithmetic, one by one."""
    height, width = shape
    found = np.zeros(shape, bool)
    high = resize_to if height <= width else int(resize_to * height / width)
    wide = int(resize_to * width / height) if height <= width else resize_to
    top, left = round((high - crop[0]) / 2.0), round((wide - crop[1]) / 2.0)
    assert high >= crop[0]
    assert wide >= crop[1]
    for y in range(height):
        for x in range(width):
            row, column = (y + 0.5) * high / height - top, (x + 0.5) * wide / width - left
            found[y, x] = 0 <= row < crop[0] and 0 <= column < crop[1]
    return found


@pytest.mark.parametrize("shape", [(61, 90), (90, 61), (64, 64)], ids=str)
@pytest.mark.parametrize("form", ["decoded", "stride", "logits"])
def test_maps_come_back_to_the_image_and_say_what_was_not_seen(
    shape: tuple[int, int], form: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"decoded": {}, "stride": {"upsample": False}, "logits": {"outputs": "logits"}}[form]
    photo = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = seen(shape, SIZE, 60)
    assert mask.any()
    assert not mask.all()
    with load(write_dense_bundle(tmp_path / "a.mtl", fit="crop", resize_to=(60,), **options)) as model:
        found, maps = model.predict(photo), model(photo)
        whole = model.predict(np.stack([load_pixels(photo, model.signature.preprocessing)[0]]))[0]
        tasks = model.tasks
    classes, depth, normals = (found[name].value for name in ("seg", "depth", "normals"))
    assert classes.shape == depth.shape == normals.shape[:2] == shape
    assert (classes[~mask] == 255).all()
    assert classes[mask].max() < len(LABELS)
    assert np.isnan(depth[~mask]).all()
    assert np.isfinite(depth[mask]).all()
    assert (normals[~mask] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals[mask], axis=-1), 1, atol=1e-5)
    # each pixel's answer is that of the crop's pixel it lies in
    top, left, height, width = place(*shape, model.signature.preprocessing).box
    rows = ((np.arange(shape[0]) + 0.5) * height / shape[0] + top).astype(int).clip(0, SIZE[0] - 1)
    columns = ((np.arange(shape[1]) + 0.5) * width / shape[1] + left).astype(int).clip(0, SIZE[1] - 1)
    if form == "decoded":
        np.testing.assert_array_equal(classes[mask], maps["seg"][0][rows[:, None], columns][mask])
    alike = classes == whole["seg"].value[rows[:, None], columns]
    assert alike[mask].mean() > 0.8  # interpolated logits choose the neighbour's class here and there
    apart = np.abs(depth - whole["depth"].value[rows[:, None], columns])[mask]
    assert np.median(apart) < 0.2 * np.ptp(whole["depth"].value)
    # and what is said of it counts the pixels that were seen
    assert found["seg"].unseen == 255
    shares = found["seg"].to_dict()["shares"]
    assert isinstance(shares, dict)
    assert set(shares) <= set(LABELS)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    assert "255" not in str(found["seg"])
    picture = np.asarray(show(photo, found, tasks))
    assert picture.ndim == 3


def test_an_image_that_is_seen_whole_has_a_value_everywhere(tmp_path: Path) -> None:
    photo = RNG.integers(0, 256, (36, 52, 3), dtype=np.uint8)
    with load(write_dense_bundle(tmp_path / "a.mtl", fit="crop", resize_to=(36,))) as model:
        found = model.predict(photo)
        small = model.predict(RNG.integers(0, 256, (60, 30, 3), dtype=np.uint8))  # black beside it
    assert found["seg"].unseen is None
    assert np.isfinite(found["depth"].value).all()
    assert small["seg"].value.shape == (60, 30)
    assert (small["seg"].value == 255).any()


@pytest.mark.parametrize(
    ("classes", "dtype", "unseen"), [(255, np.uint8, 255), (256, np.int32, -1), (300, np.int32, -1)]
)
def test_no_class_is_taken_for_what_was_not_seen(classes: int, dtype: Any, unseen: int, tmp_path: Path) -> None:
    photo = RNG.integers(0, 256, (90, 61, 3), dtype=np.uint8)
    bundle = write_dense_bundle(tmp_path / "a.mtl", fit="crop", resize_to=(60,), classes=classes)
    with load(bundle) as model:
        found = model.predict(photo)
        show(photo, found, model.tasks)
    values, mask = found["seg"].value, seen((90, 61), SIZE, 60)
    assert values.dtype == dtype
    assert found["seg"].unseen == unseen
    np.testing.assert_array_equal(values == unseen, ~mask)
    assert str(unseen) not in found["seg"].to_dict()["shares"]  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(61, 90), (90, 61), (36, 52), (20, 200)], ids=str)
@pytest.mark.parametrize("resize_to", [(60,), (30,), (50, 70)], ids=str)
def test_labels_are_cropped_as_their_images(shape: tuple[int, int], resize_to: tuple[int, ...]) -> None:
    truth = RNG.integers(1, 5, shape, dtype=np.uint8)
    preprocessing = Preprocessing(*SIZE, fit="crop", resize_to=resize_to, interpolation="nearest")
    pixels = load_pixels(Image.fromarray(np.repeat(truth[..., None], 3, axis=2)), preprocessing)[0][..., 0]
    found = at_size(Task("seg", "segmentation", labels=LABELS, size=5), truth, preprocessing, "test")
    assert found.shape == SIZE
    np.testing.assert_array_equal(found, np.where(pixels == 0, -1, pixels.astype(int)))  # black lies around the image
    depth = at_size(Task("depth", "depth", size=1), truth.astype(np.float32), preprocessing, "test")
    np.testing.assert_array_equal(depth, np.where(pixels == 0, np.nan, pixels.astype(np.float32)))


def test_a_strip_is_resized_without_a_matrix_of_all_its_weights() -> None:
    """10,000 pixels from 20,000 are made of few each; all weights with their zeros would take 1.6 GB."""
    strip = RNG.integers(0, 256, (2, 20_000, 3), dtype=np.uint8)
    expected = Image.fromarray(strip).resize((10_000, 2), Image.Resampling.BILINEAR)
    tracemalloc.start()
    try:
        found = resize(strip, 2, 10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert peak < 64 << 20
