"""The operands of ``mtl-infer``: what is said where they are swapped, forgotten, or addresses and devices that are no files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import ENGINE_SUFFIXES, MANIFEST
from mtl_deploy.runtime.console.mistaken import address_of, is_picture, no_bundle

from .errors import OptionError

_DEVICE = re.compile(r"(?:/dev/video|v4l2?:/*(?:dev/video)?|cam(?:era)?:?)?(\d*)", re.IGNORECASE)


def check_operands(model: str, images: Sequence[str]) -> None:
    """Check that the bundle and the images are in their places.

    Args:
        model: the first operand.
        images: the others.

    Raises:
        OptionError: they are not; the message says what was meant, as far as the names tell.
    """
    if address_of(model) is not None:
        raise OptionError(no_bundle(model))
    bundles = [path for path in map(Path, images) if _is_bundle(path)]
    if bundles and is_picture(model):
        others = [model, *(path for path in images if Path(path) != bundles[0])]
        raise OptionError(
            f"{model} is no bundle and {bundles[0]} is one, which comes first: write mtl-infer "
            f"{shlex.join([str(bundles[0]), *others])}"
        )
    if is_picture(model):
        given = shlex.join([model, *map(str, images)])
        raise OptionError(
            f"no bundle is named, and {model} is none: write mtl-infer MODEL {given}, where MODEL is NAME.mtl"
        )
    if not images:
        raise OptionError(
            f"no image is named: write mtl-infer {shlex.quote(model)} PHOTO.jpg; a folder, a video or camera:0 will do too"
        )
    if bundles:
        raise OptionError(
            f"{bundles[0]}: a bundle, not an image; mtl-infer runs one, and mtl-calibrate compare judges two on the same images"
        )
    for path in map(Path, images):
        _check_source(path)


def _is_bundle(path: Path) -> bool:
    if path.is_dir():
        return (path / MANIFEST).is_file()
    return path.is_file() and (path.name == MANIFEST or path.suffix in (".onnx", *ENGINE_SUFFIXES))


def _check_source(path: Path) -> None:
    address = address_of(path)
    if address is not None and address.startswith("file:"):
        raise OptionError(f"{address}: write the path, {address.removeprefix('file://')}")
    if address is not None and address.lower().startswith(("http", "ftp", "s3", "gs")) and is_picture(path):
        raise OptionError(f"{address}: an address; download the file first, and pass its path")
    device = _DEVICE.fullmatch(str(path))
    if device is not None and not str(path).startswith(("camera:", "/dev/")) and not path.exists():
        raise OptionError(f"{path}: write camera:{device[1] or '0'} for a camera")
