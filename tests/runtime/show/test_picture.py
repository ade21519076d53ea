"""Predictions as a picture."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.segmentation.legend import BLEND
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.show.colours import of_normals, of_numbers, palette, value_range
from mtl_deploy.runtime.show.picture import caption, panel_size, show, ticks

SEGMENTATION = Task("parts", "segmentation", labels=("floor", "wall", "box"), size=3)
DEPTH = Task("depth", "depth", unit="metres", size=1)
NORMALS = Task("normals", "normals", size=3)
AGE = Task("age", "regression", unit="years", size=1)
HEIGHT, WIDTH = 330, 340  # shown as they are


def pixels(picture: Image.Image, colour: object) -> int:
    return int((np.asarray(picture) == np.asarray(colour)).all(axis=-1).sum())


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_vector_tasks_are_written_below_the_image(image: np.ndarray) -> None:
    picture = show(image, {"age": Prediction("age", "regression", 31.4, unit="years")}, [AGE])
    array = np.asarray(picture)
    top = (picture.width - WIDTH) // 2
    np.testing.assert_array_equal(array[top : top + HEIGHT, top : top + WIDTH], image)
    below = array[top + HEIGHT :]
    assert below.min() < 60  # ink
    longer = show(image, {"age": Prediction("age", "regression", 31.4, unit="years " * 20)}, [AGE])
    assert longer.height > picture.height  # wrapped, not cut off
    assert longer.width == picture.width


def test_a_segmentation_lies_over_the_image_with_its_legend(image: np.ndarray) -> None:
    value = np.zeros((HEIGHT, WIDTH), np.uint8)
    value[:, 100:] = 2
    picture = show(image, {"parts": Prediction("parts", "segmentation", value)}, [SEGMENTATION])
    assert picture.width > 2 * WIDTH  # the image and one panel
    blended = np.round(BLEND * palette(3)[value] + (1 - BLEND) * image).astype(np.uint8)
    array = np.asarray(picture)
    places = [
        (y, x)
        for y in range(array.shape[0] - HEIGHT + 1)
        for x in range(WIDTH, array.shape[1] - WIDTH + 1)
        if (array[y, x] == blended[0, 0]).all() and (array[y : y + HEIGHT, x : x + WIDTH] == blended).all()
    ]
    assert len(places) == 1
    assert pixels(picture, palette(3)[0]) > 50  # swatches of the classes that occur
    assert pixels(picture, palette(3)[2]) > 50
    assert pixels(picture, palette(3)[1]) == 0


def test_the_legend_writes_a_number_as_a_class(image: np.ndarray) -> None:
    value = np.zeros((HEIGHT, WIDTH), np.uint8)
    value[:, 100:] = 2

    def drawn(*labels: str) -> np.ndarray:
        task = Task("parts", "segmentation", labels=labels, size=3)
        return np.asarray(show(image, {"parts": Prediction("parts", "segmentation", value)}, [task]))

    bare = drawn()
    np.testing.assert_array_equal(bare, drawn("0", "1", "2"))
    np.testing.assert_array_equal(bare, drawn("class 0", "class 1", "class 2"))
    np.testing.assert_array_equal(bare, drawn("class 0:", "class 1:", "class 2:"))  # no second number without a colon
    assert not np.array_equal(bare, drawn("wall", "floor", "door"))


def test_depth_has_a_scale_and_normals_their_code(image: np.ndarray) -> None:
    depth = np.linspace(0.5, 4.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normals[..., 2] = 1
    picture = show(
        image,
        {"depth": Prediction("depth", "depth", depth), "normals": Prediction("normals", "normals", normals)},
        [DEPTH, NORMALS],
    )
    low, high = value_range(depth)
    for end in (low, high):  # in the picture and in the scale
        assert pixels(picture, of_numbers(np.array([[end]], np.float32), low, high)[0, 0]) > 100
    assert pixels(picture, of_normals(normals)[0, 0]) >= HEIGHT * WIDTH


def test_a_model_with_fewer_tasks_shows_those(image: np.ndarray) -> None:
    value = np.zeros((HEIGHT, WIDTH), np.uint8)
    one = show(image, {"parts": Prediction("parts", "segmentation", value)}, [SEGMENTATION, DEPTH, NORMALS, AGE])
    assert one.size == show(image, {"parts": Prediction("parts", "segmentation", value)}, [SEGMENTATION]).size


def test_many_classes_end_in_a_sum(image: np.ndarray) -> None:
    task = Task("parts", "segmentation", size=40)
    value = (np.arange(HEIGHT * WIDTH) % 40).astype(np.uint8).reshape(HEIGHT, WIDTH)
    few = show(image, {"parts": Prediction("parts", "segmentation", value % 2)}, [task])
    many = show(image, {"parts": Prediction("parts", "segmentation", value)}, [task])
    assert few.height < many.height < 2 * few.height


def test_a_prediction_of_another_size_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="'depth'"):
        show(image, {"depth": Prediction("depth", "depth", np.zeros((2, 2), np.float32))}, [DEPTH])


def test_tiny_images_grow_and_huge_ones_shrink() -> None:
    assert panel_size(64, 32) == (640, 320)
    assert panel_size(640, 480) == (640, 480)
    assert panel_size(4000, 3000) == (960, 720)
    assert panel_size(4000, 10) == (960, 2)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.53, 4.61), (-3.0, 1250.0), (1e-4, 3e-4), (99.0, 101.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert low - 1e-9 <= found[0] < found[-1] <= high + 1e-9
    assert all(len(f"{number:g}") <= 7 for number in found)
    np.testing.assert_allclose(np.diff(found), found[1] - found[0])


def test_values_without_a_range_still_have_a_scale() -> None:
    assert value_range(np.full((3, 3), 2.0, np.float32)) == (1.5, 2.5)
    assert value_range(np.full((3, 3), np.nan, np.float32)) == (0.0, 1.0)


def test_a_caption_is_written_into_the_corner(image: np.ndarray) -> None:
    picture = Image.fromarray(image)
    before = np.asarray(picture).copy()
    caption(picture, "")
    np.testing.assert_array_equal(np.asarray(picture), before)
    caption(picture, "12.3 frames per second")
    changed = (np.asarray(picture) != before).any(axis=-1)
    assert changed[: HEIGHT // 4, : WIDTH * 3 // 4].any()
    assert not changed[HEIGHT // 4 :].any()


def test_without_pillow_the_remedy_is_named(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImageError, match=r"mtl-deploy\[images\]"):
        show(image, {}, [])
