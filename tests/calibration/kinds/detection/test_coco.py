from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.kinds.detection.coco import BoxLabels, coco_boxes
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import OptionError

PLAIN = Preprocessing(64, 64)


def document(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "images": [
            {"id": 5, "file_name": "a/one.jpg", "width": 200, "height": 100},
            {"id": 6, "file_name": "two.jpg", "width": 50, "height": 100},
            {"id": 7, "file_name": "empty.jpg", "width": 64, "height": 64},
        ],
        "annotations": [
            {"image_id": 5, "category_id": 3, "bbox": [20, 10, 100, 50], "iscrowd": 0, "area": 1.0},
            {"image_id": 5, "category_id": 1, "bbox": [150, 50, 100, 100], "iscrowd": 1},
            {"image_id": 6, "category_id": 3, "bbox": [0, 0, 25, 50]},
        ],
        "categories": [{"id": 1, "name": "Person"}, {"id": 3, "name": "car"}],
    }
    return found | changes


def read(
    folder: Path,
    content: object,
    *,
    labels: tuple[str, ...] = ("car", "person"),
    preprocessing: Preprocessing = PLAIN,
    names: tuple[str, ...] = ("a/one.jpg", "two.jpg", "empty.jpg"),
) -> tuple[BoxLabels, tuple[str, ...]]:
    file = folder / "found.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return coco_boxes(file, folder, [folder / name for name in names], labels, 2, preprocessing)


def test_boxes_are_brought_to_the_networks_input_as_images_are(tmp_path: Path) -> None:
    found, warnings = read(tmp_path, document())
    first, second, third = (found.read(place) for place in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    np.testing.assert_allclose(first.boxes, [[6.4, 6.4, 38.4, 38.4], [48, 32, 64, 64]])  # cut at the image's edges
    assert first.classes.tolist() == [0, 1]
    assert first.crowd.tolist() == [False, True]
    np.testing.assert_allclose(second.boxes, [[0, 0, 32, 32]])
    assert len(third) == 0
    assert found.known.all()
    assert warnings == ()


def test_a_letterbox_moves_boxes_and_bounds_the_image(tmp_path: Path) -> None:
    found, _ = read(tmp_path, document(), preprocessing=Preprocessing(64, 64, fit="letterbox"))
    first = found.read(0)
    assert first is not None
    np.testing.assert_allclose(first.boxes[0], [6.4, 16 + 3.2, 38.4, 16 + 19.2])
    assert first.region == (0, 16, 64, 48)


def test_a_crop_leaves_boxes_where_the_network_does_not_see_them(tmp_path: Path) -> None:
    found, _ = read(tmp_path, document(), preprocessing=Preprocessing(64, 64, fit="crop", resize_to=(64,)))
    first = found.read(0)
    assert first is not None
    np.testing.assert_allclose(first.boxes[0], [12.8 - 32, 6.4, 76.8 - 32, 38.4])
    assert first.region == (-32, 0, 96, 64)


def test_images_are_found_by_path_by_bare_name_and_in_other_spellings(tmp_path: Path) -> None:
    found, warnings = read(tmp_path, document(), names=("A/One.JPG", "sub/two.jpg", "unlisted.jpg"))
    assert found.known.tolist() == [True, True, False]
    assert found.read(2) is None
    assert "does not list 1 of 3 images (unlisted.jpg)" in warnings[0]
    found, _ = read(tmp_path, document(), names=("x/two.jpg", "y/two.jpg", "empty.jpg"))
    assert found.known.tolist() == [False, False, True]  # a bare name that two images have means neither


def test_categories_without_a_class_are_left_out_and_named(tmp_path: Path) -> None:
    found, warnings = read(tmp_path, document(), labels=("car", "bus"))
    first = found.read(0)
    assert first is not None
    assert first.classes.tolist() == [0]
    assert "left out 1 box of other categories (Person 1)" in warnings[0]


def test_without_names_categories_are_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found, _ = read(tmp_path, document(), labels=())
    first = found.read(0)
    assert first is not None
    assert first.classes.tolist() == [1, 0]
    with pytest.raises(OptionError, match="3 categories, but the task has 2 classes"):
        read(tmp_path, document(categories=[{"id": n, "name": str(n)} for n in (1, 3, 9)]), labels=())


def test_parts_and_digests(tmp_path: Path) -> None:
    found, _ = read(tmp_path, document())
    part = found.part(np.array([2, 0]))
    assert len(part) == 2
    assert part.read(1) is found.read(0)
    other, _ = read(tmp_path, document(annotations=document()["annotations"][:2]))
    assert len({found.digest, part.digest, other.digest}) == 3
    assert found.digest == read(tmp_path, document())[0].digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not in COCO's format: not valid JSON"),
        ({"images": []}, "not in COCO's format: .*annotations"),
        (document(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3]}]), r"annotations\[0\].bbox"),
        (document(images=[{"id": 5, "file_name": "a/one.jpg"}]), r"images\[0\].*width"),
        (document(images=document()["images"][:1] * 2), "two images have the same id"),
        (document(categories=[{"id": 3, "name": "car"}, {"id": 3, "name": "bus"}]), "two categories have the same id"),
        (document(categories=[{"id": 3, "name": "ship"}]), "none of its categories is a class"),
        (
            document(images=[document()["images"][0] | {"file_name": "other.jpg"}]),
            "none of its 1 images is one of the 3",
        ),
    ],
)
def test_what_cannot_be_used_is_said(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        read(tmp_path, content)


def test_boxes_without_an_area_are_left_out(tmp_path: Path) -> None:
    bad = [*document()["annotations"], {"image_id": 6, "category_id": 3, "bbox": [3, 3, 0, 5]}]
    found, warnings = read(tmp_path, document(annotations=bad))
    assert len(found.read(1) or ()) == 1
    assert "left out 1 box without an area" in warnings[0]


def test_boxes_outside_their_image_are_left_out(tmp_path: Path) -> None:
    beyond = [[200, 0, 5, 5], [0, 100, 5, 5], [-9, 0, 9, 5], [0, -9, 5, 9], [195, 95, 9, 9]]  # the last one reaches in
    bad = [{"image_id": 5, "category_id": 3, "bbox": bbox} for bbox in beyond]
    found, warnings = read(tmp_path, document(annotations=bad))
    assert [len(found.read(place) or ()) for place in range(3)] == [1, 0, 0]
    assert "left out 4 boxes outside their image" in warnings[0]


def test_boxes_of_images_that_are_not_listed_are_said(tmp_path: Path) -> None:
    stray = [{"image_id": number, "category_id": 3, "bbox": [0, 0, 9, 9]} for number in (8, 8, "x")]
    _, warnings = read(tmp_path, document(annotations=document()["annotations"] + stray))
    assert "left out 3 boxes of images that it does not list (image_id 8, 'x')" in warnings[0]
    _, warnings = read(tmp_path, document(), names=("two.jpg",))
    assert not warnings  # listed, but not among the images that are read


def picture(path: Path, width: int, height: int, *, turned: bool = False) -> None:
    path.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    Image.new("RGB", (width, height)).save(path, exif=exif)


def test_boxes_that_were_drawn_on_another_shape_are_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "one.jpg", 100, 50)  # shrunk since: boxes still fit
    picture(tmp_path / "two.jpg", 50, 100, turned=True)  # the file says what it was unturned
    found, (warning,) = read(tmp_path, document())
    assert found.known.tolist() == [True, False, True]
    assert "boxes of 1 image are left out" in warning
    assert "two.jpg is 100x50, turned by its EXIF orientation, the file says 50x100" in warning


def test_a_file_that_was_made_for_other_images_is_refused(tmp_path: Path) -> None:
    for name, size in (("a/one.jpg", (64, 64)), ("two.jpg", (90, 100)), ("empty.jpg", (64, 48))):
        picture(tmp_path / name, *size)
    with pytest.raises(OptionError, match=r"other shapes: one\.jpg is 64x64, the file says 200x100"):
        read(tmp_path, document())
