"""What an application may pass as images, turned into the tensor that a graph takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.preprocessing import Interpolation, Preprocessing
from mtl_deploy.runtime.cuda.arrays import is_on_device
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError

from .array_resize import resize_array
from .camera import checked_frame, checked_frames, expected_frame, packed, picture_for, unpacked
from .channels import as_rgb, in_network_channels
from .files import ARRAY_SUFFIX, MOST_BYTES, failing_as, opened_encoded, opened_image
from .fit import ImagePlacement, place
from .layout import Frame, Layout, checked, expected_array, frame_of, hint, holds_pixels
from .parallel import each
from .stacks import shares
from .tensors import PreparedImages, ready, stacked, tensor_of, whole_batch

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    ImageLike = str | os.PathLike[str] | PillowImage.Image | Array | bytes | bytearray | memoryview
    Images = ImageLike | Sequence[ImageLike | tuple[ImageLike, ...]]

Pixels = npt.NDArray[np.uint8]

_MOST_PIXELS = 1 << 27  # pixels that an image may have before it is cropped: a strip of 1x5000 would become 256x1280000


def prepare(images: Images, preprocessing: Preprocessing, layout: Layout = "rgb") -> tuple[Array, bool]:
    """Turn images into the graph's input.

    Args:
        images: see :func:`prepare_all`; where sizes are free, all have the size of the first.
        preprocessing: the graph's.
        layout: of arrays.

    Returns:
        The C-contiguous tensor, and whether ``images`` was a single image. A ready array is not copied.

    Raises:
        ImageError: an image cannot be read, or has another dtype or shape; names what was expected and received.
    """
    prepared = prepare_all(images, preprocessing, layout)
    if len(prepared.batches) > 1:
        sizes = ", ".join("{}x{}".format(*size) for size in dict.fromkeys(place.input for place in prepared.placements))
        raise ImageError(
            f"got images that become {sizes}; one call takes one size: pass them one by one, or use predict"
        )
    return prepared.batches[0][0], prepared.single


def prepare_all(images: Images, preprocessing: Preprocessing, layout: Layout = "rgb") -> PreparedImages:
    """Turn images of any sizes into the graph's inputs.

    Several images are decoded and resized in several threads.

    Args:
        images: one image, or a sequence of them, of any sizes; an image is a path, a PIL image, the bytes of an image file, or an
            array ``(H, W, 3) uint8``. For a network of colours or gray, arrays may also be ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 4)`` and ``uint16``, see :func:`~mtl_deploy.runtime.images.layout.frame_of`; for one of C other channels
            they are ``(H, W, C)``. A memoryview with several dimensions is an array, one with a single dimension an image
            file. A path may be that of an ``.npy`` file with such an array. Or a batch ``(N, H, W, C) uint8``, which counts as
            ready where it has the network's size: it is passed on as it is, without any crop. In a list, several images that are
            one input are a tuple, ``[(first, second), ...]``: their channels one behind another are the network's. Where the
            graph's input is float, also the ready ``(N, C, height, width) float32`` or one ``(C, height, width)`` of it, which is
            passed on as it is: normalised, and in the network's order of channels. Or a ready batch on the GPU (PyTorch, CuPy,
            pycuda, ...), RGB. For a graph that takes frames of a camera, arrays are these, ``preprocessing.source.shape``, one or
            a batch of them, also on the GPU; pictures become frames, see :func:`load_pixels`.
        preprocessing: the graph's. Where its sizes are free, sides of batches and ready arrays are multiples of ``multiple``;
            images are brought to multiples.
        layout: the colours of arrays' channels. Pictures, files and encoded images say their own; ready float arrays have the
            network's.

    Raises:
        ImageError: an image cannot be read, or has another dtype or shape; names what was expected and received.
    """
    images = as_array(images)
    if isinstance(images, np.ndarray):
        return _from_array(images, preprocessing, layout)
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or is_pillow(images):
        return stacked([load_pixels(images, preprocessing, layout)], preprocessing, single=True)
    if is_on_device(images):
        return _on_device(images, preprocessing, layout)
    if not isinstance(images, Sequence):
        raise ImageError(f"got {type(images).__name__}; {_expected(preprocessing, layout)}, or a list of them")
    if not images:
        raise ImageError("got an empty list; pass at least one image")
    return _loaded(images, preprocessing, layout)


def _loaded(images: Sequence[Any] | Array, preprocessing: Preprocessing, layout: Layout) -> PreparedImages:
    """Load several images at once, into one batch where they all get one size."""
    count, threads = len(images), _independent(images)
    if preprocessing.multiple or count == 1:
        loaded = each(lambda index: load_pixels(images[index], preprocessing, layout), count, threads=threads)
        return stacked(loaded, preprocessing)
    batch = np.empty((count, *preprocessing.image_shape), np.uint8)

    def load(index: int) -> ImagePlacement:
        return load_pixels(images[index], preprocessing, layout, out=batch[index])[1]

    return whole_batch(batch, each(load, count, threads=threads), preprocessing)


def _independent(images: Sequence[Any] | Array) -> bool:
    """Return whether images can be loaded in several threads; PIL images are decoded for that.

    An application's own sequence may make its images as they are read, one by one. What PIL images read lazily is not guarded: the
    same one must not be read in two threads, nor two that share a file.
    """
    if not isinstance(images, (list, tuple)):
        return isinstance(images, np.ndarray)
    parts = [part for image in images for part in (image if isinstance(image, tuple) else (image,))]
    pictures = [part for part in parts if is_pillow(part)]
    if len({id(picture) for picture in pictures}) < len(pictures):
        return False
    for picture in pictures:
        with failing_as("the image"):
            picture.load()
    return True


def as_array(image: Any) -> Any:
    """Return a memoryview of several dimensions as the array that it is, and anything else as it is."""
    if not isinstance(image, memoryview) or (image.ndim == 1 and image.itemsize == 1):
        return image
    try:
        return np.asarray(image)
    except (ValueError, NotImplementedError) as error:
        raise ImageError(f"got a memoryview of format {image.format!r}, which numpy does not take") from error


def _expected(preprocessing: Preprocessing, layout: Layout) -> str:
    """For errors: what may be passed."""
    return f"an image is a path, a PIL image, encoded bytes, or an array {expected_array(preprocessing, layout)}"


def _from_array(array: Array, preprocessing: Preprocessing, layout: Layout) -> PreparedImages:
    channels = preprocessing.channel_count
    if (source := preprocessing.source) is not None:
        if (frames := checked_frames(array, source)) is None:
            return stacked([load_pixels(array, preprocessing)], preprocessing, single=True)
        return whole_batch(frames, (place(source.height, source.width, preprocessing),) * len(frames), preprocessing)
    if holds_pixels(array):
        if array.ndim != 4:
            return stacked([load_pixels(array, preprocessing, layout)], preprocessing, single=True)
        checked(array, preprocessing, layout, batch=True)
        if preprocessing.multiple:
            _check_sides(array.shape, array.shape[1:3], preprocessing)
        elif array.shape[1:3] != (preprocessing.height, preprocessing.width):
            return _loaded(array, preprocessing, layout)
        frame = frame_of(array, preprocessing, layout, batch=True)
        pixels = np.ascontiguousarray(frame.arranged(frame.samples))
        return ready(tensor_of(pixels, preprocessing), array.shape[1:3])
    expected = ", ".join(_sides(preprocessing))
    if preprocessing.input == "float" and array.dtype == np.float32:
        sides = array.shape[-2:]
        wanted = sides if preprocessing.multiple else (preprocessing.height, preprocessing.width)
        if array.ndim in (3, 4) and array.shape[-3:] == (channels, *wanted) and array.size:
            _check_sides(array.shape, sides, preprocessing)
            tensor = np.ascontiguousarray(array if array.ndim == 4 else array[None])
            return ready(tensor, sides, single=array.ndim == 3)
        raise ImageError(f"got float32 of shape {array.shape}; expected (N, {channels}, {expected}), normalised")
    form = f" or ready float32 (N, {channels}, {expected})" if preprocessing.input == "float" else ""
    raise ImageError(
        f"got {array.dtype} of shape {array.shape}; expected {expected_array(preprocessing, layout, batch=True)}"
        f"{form or hint(array, channels, layout)}"
    )


def _on_device(array: Any, preprocessing: Preprocessing, layout: Layout) -> PreparedImages:
    """Check the shape of a batch on the GPU; the backend checks the rest."""
    uint8 = preprocessing.input == "uint8"
    shape = tuple(array.shape)
    if (source := preprocessing.source) is not None:
        if shape[1:] != source.shape or shape[0] < 1:
            raise ImageError(f"got an array of shape {shape} on the GPU; {expected_frame(source, shape[1:])}")
        spot = place(source.height, source.width, preprocessing)
        return PreparedImages(((array, tuple(range(shape[0]))),), (spot,) * shape[0], single=False)
    sides = shape[1:3] if uint8 else shape[2:4]
    wanted = sides if preprocessing.multiple else (preprocessing.height, preprocessing.width)
    count = preprocessing.channel_count
    if len(shape) != 4 or shape[1:] != ((*wanted, count) if uint8 else (count, *wanted)) or shape[0] < 1:
        names = (*_sides(preprocessing), str(count)) if uint8 else (str(count), *_sides(preprocessing))
        raise ImageError(f"got an array of shape {shape} on the GPU; expected (N, {', '.join(names)})")
    if uint8 and count == 3 and layout != "rgb":
        raise ImageError(
            f"got an array on the GPU with layout {layout}; arrays there go in as they are: reorder it to RGB"
        )
    _check_sides(shape, sides, preprocessing)
    return ready(array, sides)


def _sides(preprocessing: Preprocessing) -> tuple[str, str]:
    """For errors: the sides that a tensor has."""
    return ("height", "width") if preprocessing.multiple else (str(preprocessing.height), str(preprocessing.width))


def _check_sides(shape: tuple[int, ...], sides: tuple[int, ...], preprocessing: Preprocessing) -> None:
    step = preprocessing.multiple
    if step and any(side < 1 or side % step for side in sides):
        raise ImageError(f"got an array of shape {shape}; height and width must be multiples of {step}")


def load_pixels(
    image: Any, preprocessing: Preprocessing, layout: Layout = "rgb", *, out: Pixels | None = None
) -> tuple[Pixels, ImagePlacement]:
    """Return one image at the network's size, ``(height, width, C) uint8``, RGB where C is 3, and where the image lies in it.

    For a graph that takes frames of a camera it is such a frame, and where its image lies in what the network sees. A picture is
    stretched to the frame's size, antialiased, and brought to its layout.

    Args:
        image: as :func:`prepare_all` takes one. Or a tuple of
            them, of one size, whose channels together are the network's, see :mod:`~mtl_deploy.runtime.images.stacks`.
        preprocessing: the graph's.
        layout: of arrays.
        out: ``(height, width, C) uint8``, of the network's size: where to put the pixels; None: in an array of their own, which is
            ``image`` itself where nothing has to be done.

    Raises:
        ImageError: it cannot be read, has other channels than the network takes, or is something else.
    """
    image = as_array(image)
    if preprocessing.source is not None:
        return _camera_frame(image, preprocessing, out)
    if isinstance(image, tuple):
        return _several(tuple(map(as_array, image)), preprocessing, layout, out)
    if isinstance(image, np.ndarray):
        return fitted(frame_of(image, preprocessing, layout), preprocessing, out)
    if isinstance(image, (str, os.PathLike)):
        if os.fspath(image).lower().endswith(ARRAY_SUFFIX):
            with failing_as(os.fspath(image)):
                return fitted(frame_of_file(image, preprocessing, layout), preprocessing, out)
        with opened_image(image, channels=preprocessing.channel_count) as opened:
            return _from_pillow(opened, preprocessing, out)
    if isinstance(image, (bytes, bytearray, memoryview)):
        with opened_encoded(image, channels=preprocessing.channel_count) as opened:
            return _from_pillow(opened, preprocessing, out)
    if is_pillow(image):
        with failing_as("the image"):
            return _from_pillow(image, preprocessing, out)
    raise ImageError(f"got {type(image).__name__}; {_expected(preprocessing, layout)}")


def _camera_frame(image: Any, preprocessing: Preprocessing, out: Pixels | None) -> tuple[Pixels, ImagePlacement]:
    """Return a frame of the graph's source: an array is one, a picture becomes one."""
    source = preprocessing.source
    assert source is not None  # its caller has looked
    if isinstance(image, tuple):
        raise ImageError(
            f"got a tuple of {len(image)} images as one input; this graph takes {source.description}: one frame"
        )
    sides = source.height, source.width
    if isinstance(image, (str, os.PathLike)) and os.fspath(image).lower().endswith(ARRAY_SUFFIX):
        with failing_as(os.fspath(image)):
            frame = checked_frame(_read(image), source)
    elif isinstance(image, np.ndarray):
        frame = checked_frame(image, source)
    else:
        pixels, spot = load_pixels(image, picture_for(preprocessing))
        frame, sides = packed(pixels, source), spot.original
    if out is not None:
        out[...] = frame
    return frame if out is None else out, place(*sides, preprocessing)


def _several(
    images: tuple[Any, ...], preprocessing: Preprocessing, layout: Layout, out: Pixels | None
) -> tuple[Pixels, ImagePlacement]:
    """Return several images that are one input, their channels one behind another."""
    if not images or any(isinstance(image, tuple) for image in images):
        raise ImageError(
            f"got a tuple of {len(images)} images; {_expected(preprocessing, layout)}, or a tuple of those"
        )
    shared = zip(images, shares(images, preprocessing), strict=True)
    parts = [load_pixels(image, part, layout) for image, part in shared]
    placement = parts[0][1]
    if any(other != placement for _, other in parts):
        sizes = " and ".join("{}x{}".format(*other.original) for _, other in parts)
        raise ImageError(f"got images of {sizes} as one input; all images of one input must have the same size")
    return np.concatenate([pixels for pixels, _ in parts], axis=-1, out=out), placement


def frame_of_file(path: str | os.PathLike[str], preprocessing: Preprocessing, layout: Layout = "rgb") -> Frame:
    """Read an array as an image from an ``.npy`` file.

    Raises:
        ImageError: it holds none.
        OSError: it cannot be read.
    """
    return frame_of(_read(path), preprocessing, layout)


def _read(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    try:
        return read_array(Path(path), MOST_BYTES)
    except DocumentError as error:
        raise ImageError(error.problem) from error


def fitted(frame: Frame, preprocessing: Preprocessing, out: Pixels | None) -> tuple[Pixels, ImagePlacement]:
    """Return a frame at the network's size, in ``out`` where there is one, and where it lies in it."""
    placement = _placed(frame.samples.shape[0], frame.samples.shape[1], preprocessing)
    pixels = resize_array(frame.samples, *placement.box[2:], preprocessing.interpolation)
    return _boxed(frame.arranged(pixels), placement, preprocessing, out), placement


def _placed(height: int, width: int, preprocessing: Preprocessing) -> ImagePlacement:
    placement = place(height, width, preprocessing)
    high, wide = placement.box[2:]
    if preprocessing.fit == "crop" and high * wide > _MOST_PIXELS:
        raise ImageError(
            f"an image of {height}x{width} becomes {high}x{wide} before its centre is cut out; crop it yourself"
        )
    return placement


def _boxed(pixels: Pixels, placement: ImagePlacement, preprocessing: Preprocessing, out: Pixels | None) -> Pixels:
    """Put an image into its letterbox, or crop it; one that fills the input exactly is returned as it is, or copied to ``out``."""
    if not placement.bordered and out is None:
        return pixels
    canvas = np.empty((*placement.input, preprocessing.channel_count), np.uint8) if out is None else out
    if placement.bordered:
        canvas[...] = preprocessing.fill
    placement.paste(pixels, canvas)
    return canvas


def _from_pillow(
    image: PillowImage.Image, preprocessing: Preprocessing, out: Pixels | None
) -> tuple[Pixels, ImagePlacement]:
    upright = in_network_channels(image, preprocessing)
    if isinstance(upright, np.ndarray):  # Pillow would weight the other channels by the fourth, an alpha to it
        return fitted(Frame(upright), preprocessing, out)
    placement = _placed(upright.height, upright.width, preprocessing)
    pixels = _resized(upright, *placement.box[2:], preprocessing.interpolation)
    return _boxed(pixels, placement, preprocessing, out), placement


def original_pixels(path: str | os.PathLike[str], preprocessing: Preprocessing | None = None) -> Pixels:
    """Read an image file at its own size as a picture for people, ``(H, W, 3) uint8``, RGB, upright by its EXIF orientation.

    Args:
        path: of the file.
        preprocessing: of the graph that took it; None: one of RGB. Of an ``.npy`` file with more than three channels, the first
            three are shown; of one with fewer, the first as gray.

    Raises:
        ImageError: the file is missing, truncated, not an image, or so large that it may be a decompression bomb.
    """
    if os.fspath(path).lower().endswith(ARRAY_SUFFIX):
        with failing_as(os.fspath(path)):
            if preprocessing is not None and (source := preprocessing.source) is not None:
                shown = unpacked(checked_frame(_read(path), source), source)
                return shown if shown.shape[2] == 3 else np.repeat(shown, 3, axis=2)
            frame = frame_of_file(path, preprocessing or Preprocessing())
            pixels = frame.arranged(frame.samples)
            return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    with opened_image(path) as image:
        return np.asarray(as_rgb(image))


def _resized(image: PillowImage.Image, height: int, width: int, interpolation: Interpolation) -> Pixels:
    from PIL import Image

    pixels = np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()]))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def is_pillow(value: object) -> bool:
    """Return whether a value is a PIL image, without importing Pillow."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)
