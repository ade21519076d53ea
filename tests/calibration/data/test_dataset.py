"""Calibration data: every source, every kind of file, bad files named, halves without overlap."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images.loading import load_pixels
from mtl_deploy.runtime.images.resize import resize

SIZE = Preprocessing(height=12, width=10)
AGE = Task("age", "regression", unit="years", size=1)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", labels=("White", "Black", "Asian", "Indian", "Others"), size=5)
TASKS = (AGE, GENDER, RACE)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return synthetic_images(count, 16, 14, seed=seed)


def write(folder: Path, names: list[str] | tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(names, pictures(len(names)), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few kB that says it is huge, and is: its rows are compressed zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Six images ``0.png`` to ``5.png``."""
    write(tmp_path / "images", [f"{i}.png" for i in range(6)])
    return tmp_path / "images"


def test_images_of_every_kind_are_read_as_the_runtime_reads_them(tmp_path: Path) -> None:
    picture = Image.fromarray(pictures(3)[2])
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    picture.save(tmp_path / "rgb.png")
    picture.save(tmp_path / "photo.JPG", "JPEG", exif=exif)
    picture.convert("L").save(tmp_path / "grey.jpeg")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    picture.convert("P").save(tmp_path / "palette.gif")
    picture.convert("LA").save(tmp_path / "grey_alpha.png")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    picture.convert("1").save(tmp_path / "bits.png")
    picture.save(tmp_path / "plain.webp")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    data = load_data(tmp_path, SIZE, TASKS)
    assert (len(data), data.skipped, data.labels) == (11, {}, {})
    for pixels, path in zip(data.images, sorted(tmp_path.iterdir()), strict=True):
        np.testing.assert_array_equal(pixels, load_pixels(path, Preprocessing(12, 10))[0], err_msg=path.name)
        upright = picture.transpose(Image.Transpose.ROTATE_270) if path.name == "photo.JPG" else picture
        grey = np.asarray(upright.resize((10, 12)).convert("L")).astype(float)
        assert np.abs(pixels.mean(axis=2) - grey).mean() < 30, path.name


def test_bad_files_are_named_with_their_reason_and_do_not_end_the_run(numbered: Path) -> None:
    whole = numbered / "5.jpg"
    Image.fromarray(synthetic_images(1, 200, 200, seed=1)[0]).save(whole)
    (numbered / "cut.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (numbered / "empty.png").write_bytes(b"")
    (numbered / "page.jpg").write_text("<html>not found</html>")
    (numbered / "bomb.png").write_bytes(png_of_size(20000, 10000))
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(numbered / "depth.tiff")
    (numbered / "gone.png").symlink_to(numbered / "nowhere.png")
    data = load_data(numbered, SIZE, TASKS)
    assert len(data) == 7
    assert data.skipped.keys() == {"cut.jpg", "empty.png", "page.jpg", "bomb.png", "depth.tiff", "gone.png"}
    assert "truncated" in data.skipped["cut.jpg"]
    assert "pixels; shrink it" in data.skipped["bomb.png"]
    assert "floating-point" in data.skipped["depth.tiff"]
    assert data.source == f"7 images from {numbered}, 6 files left out"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_files_damaged_at_random_never_end_the_run_nor_fill_the_screen(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    Image.fromarray(pictures(3)[2]).save(tmp_path / "0000.png")
    Image.fromarray(pictures(3)[2]).save(tmp_path / "whole", kind)
    whole = (tmp_path / "whole").read_bytes()
    for i in range(1, 80):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 300), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        (tmp_path / f"{i:04d}.{kind.lower()}").write_bytes(damaged[: random.integers(1, len(whole)) if i % 2 else None])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        data = load_data(tmp_path, SIZE, TASKS)
    assert len(data) + len(data.skipped) == 80
    assert len(data.skipped) > 10
    assert shown == []


def test_an_array_file_is_resized_as_the_runtime_does(tmp_path: Path) -> None:
    images = pictures(7)
    np.save(tmp_path / "images.npy", images)
    data = load_data(tmp_path / "images.npy", SIZE, TASKS)
    np.testing.assert_array_equal(data.images, np.stack([resize(image, 12, 10) for image in images]))
    assert (data.images.dtype, data.labels) == (np.uint8, {})
    drawn = load_data(tmp_path / "images.npy", SIZE, TASKS, samples=3, seed=1)
    assert len(drawn) == 3
    assert all((data.images == image).all(axis=(1, 2, 3)).any() for image in drawn.images)


def test_an_array_of_the_networks_size_is_ready_for_a_crop_as_a_batch_is(tmp_path: Path) -> None:
    cropping = Preprocessing(height=12, width=10, fit="crop", resize_to=(14,))
    depth = Task("depth", "depth", size=1)
    ready = np.random.default_rng(3).integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)
    np.savez(tmp_path / "ready.npz", images=ready, **{"labels/depth": np.full((4, 24, 20), 2.0, np.float32)})
    data = load_data(tmp_path / "ready.npz", cropping, [depth])
    np.testing.assert_array_equal(data.images, ready)
    truth = data.dense["depth"].read(0)
    assert truth is not None
    assert (truth == 2).all()
    others = np.random.default_rng(3).integers(0, 256, (4, 30, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "others.npy", others)
    data = load_data(tmp_path / "others.npy", cropping, [depth])
    np.testing.assert_array_equal(data.images, np.stack([load_pixels(image, cropping)[0] for image in others]))


def test_an_npz_file_holds_images_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    truth = {
        "labels/age": np.array([[1.0], [2], [np.nan], [4]], np.float32),
        "labels/gender": np.array(["male", "Female", "", "male"]),
        "labels/race": np.array([4, -1, 0, 2], np.int8),
    }
    np.savez(file, images=pictures(4), extra=np.zeros(3), **truth)
    data = load_data(file, SIZE, TASKS)
    np.testing.assert_array_equal(data.labels["age"], [1, 2, np.nan, 4])
    assert data.labels["gender"].tolist() == [0, 1, -1, 0]
    assert data.labels["race"].tolist() == [4, -1, 0, 2]
    assert "data.npz: extra not used; name label arrays labels/<task>" in data.warnings
    drawn = load_data(file, SIZE, TASKS, samples=2, seed=2)
    for image, race in zip(drawn.images, drawn.labels["race"], strict=True):
        position = int((data.images == image).all(axis=(1, 2, 3)).argmax())
        assert data.labels["race"][position] == race


def test_a_regression_of_several_values_takes_rows_of_labels(tmp_path: Path) -> None:
    task = Task("pose", "regression", unit="degrees", size=3)
    np.savez(tmp_path / "pose.npz", images=pictures(2), **{"labels/pose": np.array([[1, 2, 3], [np.nan] * 3])})
    data = load_data(tmp_path / "pose.npz", SIZE, [task])
    np.testing.assert_array_equal(data.labels["pose"], [[1, 2, 3], [np.nan] * 3])
    assert "pose: labels for 1 of 2 images" in data.warnings


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels/age": np.zeros(3)}, "labels/age: shape (3,) for 4 images"),
        ({"labels/race": np.array([0, 1, 2, 5])}, "no index from 0 to 4, nor -1"),
        ({"labels/race": np.array([0, 1, 2, 0.5])}, "no index from 0 to 4, nor -1"),
        ({"labels/gender": np.array(["male", "x", "", ""])}, "gender 'x' is not one of male, female or an index"),
        ({"labels/age": np.array([1, np.inf, 2, 3])}, "holds infinite values"),
        ({"labels/age": np.zeros((4, 2))}, "shape (4, 2); expected one label per image"),
    ],
    ids=["length", "range", "fraction", "text", "infinite", "shape"],
)
def test_labels_in_an_npz_file_that_do_not_fit_are_errors(
    tmp_path: Path, labels: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "data.npz", images=pictures(4), **labels)
    with pytest.raises(ImageError, match=re.escape(message)):
        load_data(tmp_path / "data.npz", SIZE, TASKS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 8, 8, 3), np.float32),
            "float32 of shape (2, 8, 8, 3); expected uint8 (N, H, W, 3), RGB; give the pixels",
        ),
        (np.zeros((2, 3, 8, 8), np.uint8), "move the channels to the end"),
        (np.zeros((2, 8, 8), np.uint8), "stack grey images three times"),
        (np.zeros((0, 8, 8, 3), np.uint8), "shape (0, 8, 8, 3)"),
        (np.array([{}], object), "cannot be read as an array"),
    ],
    ids=["float", "channels first", "grey", "empty", "pickle"],
)
def test_arrays_of_another_form_are_errors_that_say_what_to_do(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(ImageError, match=re.escape(message)):
        load_data(tmp_path / "images.npy", SIZE, TASKS)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_for_a_gray_network_are_an_error_that_says_how_to_make_them_gray(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, channels), np.uint8))
    gray = Preprocessing(8, 8, mean=(0.5,), std=(0.25,))
    with pytest.raises(ImageError, match=r"expected uint8 \(N, H, W, 1\), gray; make each gray: .*convert\('L'\)"):
        load_data(tmp_path / "images.npy", gray, ())


def test_damaged_and_foreign_array_files_are_errors(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", images=pictures(4))
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    for name, damaged in {
        "cut.npz": content[: len(content) // 2],
        "flipped.npz": content[:200] + bytes(b ^ 255 for b in content[200:260]) + content[260:],
        "text.npy": b"no array",
        "empty.npz": b"",
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ImageError, match=re.escape(f"{name}: cannot be read as an array")):
            load_data(tmp_path / name, SIZE, TASKS)
    np.savez(tmp_path / "other.npz", pictures=pictures(2))
    with pytest.raises(ImageError, match="no array 'images'; it holds pictures"):
        load_data(tmp_path / "other.npz", SIZE, TASKS)
    with pytest.raises(ImageError, match="No such file"):
        load_data(tmp_path / "missing.npy", SIZE, TASKS)


def test_no_data_is_an_error_that_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="INT8 needs images to calibrate with; give --calibration-data a folder"):
        load_data(None, SIZE, TASKS)
    with pytest.raises(ImageError, match="no image in this folder"):
        load_data(tmp_path, SIZE, TASKS)
    with pytest.raises(OptionError, match="at least 1"):
        load_data(tmp_path, SIZE, TASKS, samples=0)
    np.save(tmp_path / "images.npy", pictures(2))
    with pytest.raises(OptionError, match=r"put the labels into an \.npz file"):
        load_data(tmp_path / "images.npy", SIZE, TASKS, labels=tmp_path / "labels.csv")


def test_weak_data_is_said_to_be_weak(tmp_path: Path) -> None:
    def warned(images: np.ndarray) -> str:
        np.save(tmp_path / "images.npy", images)
        return "; ".join(load_data(tmp_path / "images.npy", SIZE, TASKS).warnings)

    assert "only 9 images" in warned(pictures(9))
    assert "nearly constant" in warned(np.full((200, 12, 10, 3), 90, np.uint8))
    assert "nearly the same" in warned(np.repeat(pictures(3)[2:], 200, axis=0))
    noise = np.random.default_rng(0).integers(0, 256, (200, 12, 10, 3), dtype=np.uint8)
    assert "look like random numbers" in warned(noise)
    assert warned(synthetic_images(200, 12, 10, seed=0)) == ""


def test_classes_without_an_image_are_named(tmp_path: Path) -> None:
    truth = {"labels/race": np.array([0, 0, 2, 2]), "labels/age": np.full(4, 30.0)}
    np.savez(tmp_path / "data.npz", images=pictures(4), **truth)
    text = load_data(tmp_path / "data.npz", SIZE, TASKS).warnings
    assert "race: no image of 3 of 5 classes (Black, Indian, Others)" in text
    assert "age: all labels are 30" in text
    assert "gender: no labels; its outputs can only be compared with FP32" in text


def labelled(count: int, copies: int = 1) -> CalibrationData:
    images = np.repeat(pictures(count), copies, axis=0)
    return CalibrationData(images, {"age": np.arange(count * copies, dtype=np.float64)}, "test")


def halves(data: CalibrationData, share: float = 0.5, seed: int = 0) -> list[CalibrationData]:
    part = data.parts((share, 1 - share), seed)
    return [data.select(part == number) for number in range(2)]


@pytest.mark.parametrize(("share", "first"), [(0.5, 10), (0.75, 15), (0.01, 1), (0.99, 19)])
def test_a_split_has_no_image_on_both_sides_and_keeps_labels(share: float, first: int) -> None:
    data = labelled(20)
    calibration, evaluation = halves(data, share, seed=1)
    assert (len(calibration), len(evaluation)) == (first, 20 - first)
    together = np.concatenate([calibration.labels["age"], evaluation.labels["age"]])
    assert sorted(together) == list(range(20))
    for part in (calibration, evaluation):
        np.testing.assert_array_equal(part.images, data.images[part.labels["age"].astype(int)])
    assert calibration.digest == halves(data, share, seed=1)[0].digest
    assert len({data.digest, calibration.digest, evaluation.digest}) == 3


def test_a_split_follows_its_seed() -> None:
    assert len({halves(labelled(20), seed=seed)[0].digest for seed in range(5)}) == 5


def test_equal_images_go_to_the_same_side() -> None:
    for part in halves(labelled(10, copies=3), seed=2):
        groups = np.unique(part.labels["age"] // 3, return_counts=True)[1]
        assert len(part) == 15
        assert set(groups) == {3}


def test_what_cannot_be_split_is_an_error() -> None:
    with pytest.raises(ImageError, match="3 images, all equal"):
        halves(labelled(1, copies=3))
    with pytest.raises(OptionError, match="between 0 and 1"):
        halves(labelled(4), 1.0)


def test_a_part_without_any_label_of_a_task_leaves_the_task_out() -> None:
    labels = {"race": np.array([3, -1, -1, -1]), "gender": np.array([0, 1, 0, 1])}
    data = CalibrationData(pictures(4), labels, "test")
    assert any(part.labels.keys() == {"gender"} for part in halves(data))


def test_the_digest_is_of_pixels_and_labels() -> None:
    data = labelled(4)
    changed = data.images.copy()
    changed[0, 0, 0, 0] ^= 1
    digests = [
        data.digest,
        CalibrationData(changed, data.labels, "test").digest,
        CalibrationData(data.images, {"age": data.labels["age"] + 1}, "test").digest,
        CalibrationData(data.images, {"old": data.labels["age"]}, "test").digest,
        CalibrationData(data.images, {}, "test").digest,
    ]
    assert len(set(digests)) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert CalibrationData(data.images[:, ::-1][:, ::-1], data.labels, "elsewhere").digest == data.digest


def test_data_of_another_form_is_refused() -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        CalibrationData(np.zeros((2, 4, 4, 3), np.float32), {}, "test")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="3 labels of task 'age' for 2 images"):
        CalibrationData(pictures(2), {"age": np.zeros(3)}, "test")
