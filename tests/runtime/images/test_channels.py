"""Images of one, four and more channels: arrays, array files and pictures."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.images.files import images_in
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import load_pixels, original_pixels, prepare
from mtl_deploy.runtime.images.resize import resize

RNG = np.random.default_rng(2)


def taking(count: int, **options: object) -> Preprocessing:
    return Preprocessing(12, 10, mean=(0.5,) * count, std=(0.25,) * count, **options)  # type: ignore[arg-type]


def image(channels: int, height: int = 30, width: int = 20) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "nearest"])
def test_each_channel_is_resized_by_itself_as_pillow_does(channels: int, kind: str) -> None:
    pixels = image(channels)
    planes = [
        np.asarray(Image.fromarray(pixels[..., channel]).resize((10, 30), Image.Resampling[kind.upper()]))
        for channel in range(channels)
    ]
    np.testing.assert_array_equal(resize(pixels, 30, 10, kind), np.stack(planes, axis=-1))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_arrays_and_array_files_are_taken_with_the_networks_channels(channels: int, tmp_path: Path) -> None:
    pixels = image(channels)
    np.save(tmp_path / "image.NPY.npy", pixels)
    (tmp_path / "image.NPY.npy").rename(tmp_path / "image.NPY")
    expected = resize(pixels, 12, 10)
    for given in (pixels, tmp_path / "image.NPY", str(tmp_path / "image.NPY")):
        tensor, single = prepare(given, taking(channels))
        assert single
        np.testing.assert_array_equal(tensor, expected[None])
    batch = np.stack([expected] * 3)
    assert np.shares_memory(prepare(batch, taking(channels))[0], batch)
    planes, _ = prepare(pixels, taking(channels, input="float"))
    np.testing.assert_allclose(planes[0], (expected.transpose(2, 0, 1) / 255 - 0.5) / 0.25, atol=1e-5)


def test_a_matrix_is_an_image_of_one_channel() -> None:
    pixels = image(1)
    np.testing.assert_array_equal(load_pixels(pixels[..., 0], taking(1))[0], load_pixels(pixels, taking(1))[0])
    for batch in (np.zeros((3, 12, 10), np.uint8), np.zeros((7, 12, 10), np.uint8)):
        with pytest.raises(ImageError, match=r"\(H, W\) or \(H, W, 1\), gray; .*images\[..., None\]"):
            prepare(batch, taking(1))


@pytest.mark.parametrize(
    ("shape", "dtype", "count", "hint"),
    [
        ((12, 10), np.float32, 1, "gray; give the values as uint8, 0 to 255, without normalisation"),
        ((12, 10, 1), np.float64, 1, "gray; give the values as uint8, 0 to 255, without normalisation"),
        (
            (12, 10, 3),
            np.float32,
            1,
            "without normalisation",
        ),
        ((1, 12, 10), np.float32, 1, "without normalisation; move the channels to the end: image.transpose(1, 2, 0)"),
        ((3, 12, 10), np.float32, 3, "without normalisation; move the channels to the end: image.transpose(1, 2, 0)"),
        ((12, 10), np.float32, 3, "without normalisation"),
        (
            (3, 12, 10),
            np.uint8,
            1,
            "gray; make planes of colours an image: image.transpose(1, 2, 0); a batch of gray images is images[..., None]",
        ),
        ((12,), np.uint8, 3, "RGB"),
    ],
)
def test_an_array_of_another_form_is_refused_with_the_way_to_the_right_one(
    shape: tuple[int, ...], dtype: type, count: int, hint: str
) -> None:
    with pytest.raises(ImageError) as caught:
        prepare([np.zeros(shape, dtype)], taking(count))
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("shape", "dtype", "count", "hint"),
    [
        (
            (12, 10, 3),
            np.float32,
            1,
            "without normalisation",
        ),
        ((2, 3, 12, 10), np.uint8, 3, "RGB; move the channels to the end: images.transpose(0, 2, 3, 1)"),
        (
            (2, 1, 12, 10),
            np.float32,
            1,
            "without normalisation; move the channels to the end: images.transpose(0, 2, 3, 1)",
        ),
        ((2, 12, 10, 1), np.float32, 1, "gray; give the values as uint8, 0 to 255, without normalisation"),
        ((0, 12, 10, 3), np.uint8, 3, "RGB"),
        ((0, 12, 10, 4), np.uint8, 3, "RGB"),
        ((), np.uint8, 1, "gray"),
    ],
)
def test_a_batch_of_another_form_is_refused_with_the_way_to_the_right_one(
    shape: tuple[int, ...], dtype: type, count: int, hint: str
) -> None:
    with pytest.raises(ImageError) as caught:
        prepare(np.zeros(shape, dtype), taking(count))
    assert str(caught.value).endswith(hint)
    with pytest.raises(ImageError) as caught:
        prepare(np.zeros((12, 10), np.float64), taking(count, input="float"))
    assert "without normalisation" not in str(caught.value)  # ready values would be normalised


@pytest.mark.parametrize("channels", [1, 3])
def test_a_palette_with_alphas_gives_its_colours_and_no_warning(channels: int, tmp_path: Path) -> None:
    plain = Image.fromarray(image(3)).quantize(16)
    plain.save(tmp_path / "plain.png")
    plain.save(tmp_path / "alphas.png", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = load_pixels(tmp_path / "alphas.png", taking(channels))
    np.testing.assert_array_equal(found, load_pixels(tmp_path / "plain.png", taking(channels))[0])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_picture_becomes_gray_as_pillow_does_it(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        levels = RNG.integers(0, 1 << 16, (12, 10), dtype=np.uint16)
        picture, expected = Image.fromarray(levels), (levels >> 8).astype(np.uint8)
    else:
        picture = Image.fromarray(image(3, 12, 10)).convert(mode)
        expected = np.asarray(picture.convert("L"))
    picture.save(tmp_path / "picture.tiff")
    for given in (tmp_path / "picture.tiff", picture):
        np.testing.assert_array_equal(load_pixels(given, taking(1))[0], expected[..., None])


@pytest.mark.parametrize(("suffix", "mode"), [("tiff", "RGBA"), ("png", "RGBA"), ("tiff", "CMYK")])
def test_a_picture_of_four_channels_keeps_them_and_no_alpha_weights_the_others(
    suffix: str, mode: str, tmp_path: Path
) -> None:
    pixels = image(4)
    pixels[:15, :, 3] = 0  # transparent, where Pillow's own resizing would lose the colour
    Image.fromarray(pixels, mode).save(tmp_path / f"four.{suffix}")
    np.testing.assert_array_equal(load_pixels(tmp_path / f"four.{suffix}", taking(4))[0], resize(pixels, 12, 10))


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_a_picture_of_other_channels_is_refused_with_the_way_on(channels: int, tmp_path: Path) -> None:
    Image.fromarray(image(3)).save(tmp_path / "rgb.tiff")
    with pytest.raises(ImageError, match=rf"rgb.tiff: .*takes {channels}.*\(H, W, {channels}\) uint8 as .npy"):
        load_pixels(tmp_path / "rgb.tiff", taking(channels))
    with pytest.raises(ImageError, match="No such file"):
        load_pixels(tmp_path / "absent.tiff", taking(channels))


def write_tiff(file: Path, pixels: np.ndarray, photometric: int = 2) -> None:
    """Write ``(H, W, C)`` as an uncompressed TIFF 6.0 of one strip; Pillow writes at most four channels."""
    height, width, bands = pixels.shape
    bits, extra = 8 * pixels.itemsize, bands - (4 if photometric == 5 else 3)
    data = pixels.tobytes()
    start = 8 + len(data)
    tags = [
        (256, [width]), (257, [height]), (258, [bits] * bands), (259, [1]), (262, [photometric]), (273, [8]), (277, [bands]),
        (278, [height]), (279, [len(data)]), (284, [1]), (338, [0] * extra),
    ]  # fmt: skip
    tags = [(tag, values) for tag, values in tags if values]
    beyond, place, entries = b"", start + 2 + 12 * len(tags) + 4, b""
    for tag, values in tags:
        held = struct.pack(f"<{len(values)}H", *values)
        if len(held) > 4:
            held, beyond = struct.pack("<I", place + len(beyond)), beyond + held
        entries += struct.pack("<HHI", tag, 3, len(values)) + held.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start)
    file.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + beyond)


@pytest.mark.parametrize("bands", [5, 6])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tiff_of_more_channels_is_refused_where_pillow_would_drop_them(
    channels: int, bands: int, tmp_path: Path
) -> None:
    write_tiff(tmp_path / "bands.tif", image(bands))
    message = (
        rf"the picture has {bands} channels, .* with 4 at most; save the array \(H, W, {channels}\) uint8 .* as .npy"
    )
    with pytest.raises(ImageError, match=rf"bands.tif: {message}"):
        load_pixels(tmp_path / "bands.tif", taking(channels))
    with Image.open(tmp_path / "bands.tif") as picture, pytest.raises(ImageError, match=message):
        load_pixels(picture, taking(channels))


@pytest.mark.parametrize(("bands", "photometric"), [(3, 2), (4, 2), (4, 5), (5, 5)])
def test_a_tiff_of_colours_or_inks_and_an_alpha_is_read(bands: int, photometric: int, tmp_path: Path) -> None:
    pixels = image(bands)
    write_tiff(tmp_path / "colours.tif", pixels, photometric)
    inks = photometric == 5
    shown = np.ascontiguousarray(pixels[..., : 4 if inks else 3])
    expected = Image.fromarray(shown, "CMYK" if inks else "RGB").convert("RGB")
    np.testing.assert_array_equal(
        load_pixels(tmp_path / "colours.tif", taking(3))[0], load_pixels(expected, taking(3))[0]
    )


@pytest.mark.parametrize(("bands", "kind"), [(8, np.uint8), (5, np.uint16), (3, np.float32)], ids=str)
def test_a_tiff_that_pillow_does_not_read_is_refused_with_the_way_on(bands: int, kind: type, tmp_path: Path) -> None:
    write_tiff(tmp_path / "bands.tif", np.ones((12, 10, bands), kind))
    with pytest.raises(ImageError, match=r"bands.tif: a damaged TIFF, or one with more .*\(H, W, 3\) uint8 as .npy"):
        load_pixels(tmp_path / "bands.tif", taking(3))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 12, 10), np.uint8), r"move the channels to the end: image.transpose\(1, 2, 0\)"),
        (np.zeros((12, 10, 6), np.float32), "0 to 255, without normalisation"),
        (np.zeros((12, 10, 3), np.uint8), r"expected uint8 \(H, W, 6\)$"),
        (np.zeros((0, 10, 6), np.uint8), r"\(0, 10, 6\)"),
        (np.array([None]), "cannot be read|holds no plain array|object"),
    ],
    ids=["planes", "float", "three", "empty", "pickle"],
)
def test_an_array_file_of_another_form_is_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=message) as caught:
        load_pixels(tmp_path / "image.npy", taking(6))
    assert str(caught.value).startswith(f"{tmp_path / 'image.npy'}: ")


def test_bgr_planes_are_swapped_where_the_runtime_normalises_and_the_border_is_the_mean() -> None:
    pixels = image(3, 12, 10)
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.25, 0.5)
    options = {"mean": mean, "std": std, "channels": "bgr"}
    planes, _ = prepare(pixels, Preprocessing(12, 10, input="float", **options))  # type: ignore[arg-type]
    expected = (pixels[..., ::-1] / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(planes[0], expected.transpose(2, 0, 1), atol=1e-5)
    boxed = Preprocessing(12, 10, fit="letterbox", **options)  # type: ignore[arg-type]
    canvas, placement = load_pixels(image(3, 5, 10), boxed)
    assert placement.bordered
    assert canvas[0, 0].tolist() == [178, 102, 26]  # R, G, B


def test_borders_have_as_many_channels_as_the_image() -> None:
    for channels in (1, 6):
        boxed = taking(channels, fit="letterbox")
        canvas, _ = load_pixels(image(channels, 5, 10), boxed)
        assert canvas.shape == (12, 10, channels)
        assert (canvas[0, 0] == 128).all()
        assert place(5, 10, boxed).bordered


def test_folders_list_array_files_where_pictures_cannot_be_meant(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", image(6))
    assert images_in(tmp_path, 3) == [tmp_path / "one.npy"]
    Image.fromarray(image(3)).save(tmp_path / "two.png")
    assert images_in(tmp_path, 3) == images_in(tmp_path, 1) == [tmp_path / "two.png"]
    assert images_in(tmp_path, 6) == [tmp_path / "one.npy", tmp_path / "two.png"]


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (4, [0, 1, 2]), (6, [0, 1, 2])])
def test_an_array_file_is_shown_as_a_picture(channels: int, shown: list[int], tmp_path: Path) -> None:
    pixels = image(channels)
    np.save(tmp_path / "image.npy", pixels)
    found = original_pixels(tmp_path / "image.npy", taking(channels))
    np.testing.assert_array_equal(found, pixels[..., shown])


@pytest.mark.parametrize(
    ("channels", "count", "order"),
    [
        (None, 1, "gray"),
        (None, 3, "rgb"),
        (None, 5, 5),
        ("RGB", 3, "rgb"),
        (3, 3, "rgb"),
        ("1", 1, "gray"),
        ("bgr", 3, "bgr"),
    ],
)
def test_an_order_has_one_name(channels: str | int | None, count: int, order: str | int) -> None:
    made = taking(count, channels=channels)
    assert made.channels == order
    assert Preprocessing.from_dict(made.to_dict()) == made


def test_records_of_earlier_releases_are_rgb() -> None:
    record = Preprocessing(12, 10).to_dict()
    assert record["channels"] == "RGB"
    del record["channels"]
    assert Preprocessing.from_dict(record).channels == "rgb"


@pytest.mark.parametrize(("channels", "count"), [("bgr", 1), ("gray", 3), (4, 3), ("rgba", 4), (0, 0), (2000, 2000)])
def test_an_order_that_does_not_fit_is_refused(channels: str | int, count: int) -> None:
    with pytest.raises(OptionError):
        taking(count, channels=channels)


def test_two_images_are_one_input_of_twice_the_channels() -> None:
    first, second = image(3), image(3)
    tensor, single = prepare([(first, Image.fromarray(second)), (second, first)], taking(6))
    assert not single
    assert tensor.shape == (2, 12, 10, 6)
    resized = [resize(pixels, 12, 10) for pixels in (first, second)]
    np.testing.assert_array_equal(tensor[0], np.concatenate(resized, axis=-1))
    np.testing.assert_array_equal(tensor[1], np.concatenate(resized[::-1], axis=-1))


def test_a_picture_and_its_depth_are_one_input(tmp_path: Path) -> None:
    colours, depth = image(3), image(1)
    Image.fromarray(colours).save(tmp_path / "image.png")
    mean, std = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)
    planes, _ = prepare([(tmp_path / "image.png", depth[..., 0])], Preprocessing(12, 10, mean, std, input="float"))
    expected = np.concatenate([resize(colours, 12, 10), resize(depth, 12, 10)], axis=-1) / 255
    np.testing.assert_allclose(planes[0], ((expected - mean) / std).transpose(2, 0, 1), atol=1e-5)


def test_a_letterbox_surrounds_each_image_with_its_own_mean() -> None:
    both = Preprocessing(20, 20, (0.1,) * 3 + (0.9,), (0.5,) * 4, fit="letterbox")
    pixels, placement = load_pixels((image(3), image(1)), both)
    assert placement.original == (30, 20)
    np.testing.assert_array_equal(pixels[0, 0], [26, 26, 26, 230])


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("form", ["uint8", "float"])
def test_the_parts_of_a_colour_image_are_the_image(form: str, fit: str, channels: str) -> None:
    mean, std = (0.9, 0.5, 0.1), (0.2, 0.3, 0.4)
    taken = Preprocessing(12, 20, mean, std, form, fit, channels=channels)  # type: ignore[arg-type]
    pixels = image(3)
    expected, _ = prepare([pixels], taken)
    for parts in (
        (pixels,),
        (pixels[..., 0], pixels[..., 1], pixels[..., 2]),
        (pixels[..., :1], pixels[..., 1:]),
        (pixels[..., :2], pixels[..., 2]),
    ):
        np.testing.assert_array_equal(prepare([parts], taken)[0], expected)


@pytest.mark.parametrize("shape", [(), (12,), (12, 10, 0), (1, 12, 10, 3)])
def test_an_array_in_a_tuple_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"part of one input; expected uint8 \(H, W\) or \(H, W, channels\)") as caught:
        prepare([(np.zeros(shape, np.uint8), image(3))], taking(6))
    assert f"got uint8 of shape {shape} " in str(caught.value)


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        ((image(3), image(3)), 4, r"2 images as one input, of 3 \+ 3 channels; the network takes 4"),
        ((image(3), "a.png", "b.png"), 4, r"3 images as one input, of 3 \+ \? \+ \? channels; the network takes 4"),
        ((image(3), image(3, 20, 20)), 6, "30x20 and 20x20 as one input"),
        ((), 6, "a tuple of 0 images"),
        (((image(3), image(3)), image(3)), 9, "a tuple of 2 images"),
    ],
    ids=["too many", "cannot be shared", "sizes", "none", "nested"],
)
def test_images_that_are_no_input_together_are_refused(given: tuple[object, ...], count: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        prepare([given], taking(count))  # type: ignore[list-item]
