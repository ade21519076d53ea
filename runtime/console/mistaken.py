"""What a path is that was given in the place of a bundle, and what to do with it."""

from __future__ import annotations

import os
import re
from pathlib import Path

CHECKPOINTS = (".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".bin", ".tar")
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp", ".npy")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])", re.IGNORECASE)
_MANIFEST = "manifest.json"
_LOOKED_AT = 200  # entries of a folder


def address_of(path: str | os.PathLike[str]) -> str | None:
    """Return the address that a path is meant as, with the slashes that :class:`~pathlib.Path` has merged; None: it is a path."""
    text = os.fspath(path)
    found = _ADDRESS.match(text)
    if found is None or os.path.lexists(text):
        return None
    return f"{found[1]}://{text[found.end() :]}" if found[1].lower() != "file" else f"file:///{text[found.end() :]}"


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a picture, a video or a camera by its name, or a folder of pictures."""
    file = Path(path)
    if os.fspath(path).startswith("camera:") or file.suffix.lower() in (*PICTURES, *VIDEOS):
        return not file.is_dir()
    return file.is_dir() and not (file / _MANIFEST).is_file() and any(_named(file, PICTURES))


def no_bundle(path: str | os.PathLike[str], room: str = "a bundle") -> str:
    """Return the error for a path that is no bundle: what it is instead, as far as its name and content tell, and the way on.

    Args:
        path: what was given.
        room: what was expected there.
    """
    file = Path(path)
    if (address := address_of(path)) is not None:
        return f"{address}: an address, not {room}; bundles are read from a disk: copy the whole folder here first"
    if file.suffix.lower() in CHECKPOINTS:
        there = "a checkpoint" if file.exists() else "no such file; by its name it would be a checkpoint"
        return f"{file}: {there}, not {room}: make a bundle of it with mtl-export {file}"
    if is_picture(path):
        what = "a folder of images" if file.is_dir() else "an image or video"
        return f"{file}: {what}, not {room}; the bundle comes first, and mtl-export makes one of a network"
    if file.is_dir():
        inside = sorted(entry.name for entry in _entries(file) if (entry / _MANIFEST).is_file())
        if inside:
            more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            return (
                f"{file}: not a bundle (no {_MANIFEST} in it), but it holds {inside[0]}{more}: pass {file / inside[0]}"
            )
        return f"{file}: not a bundle (no {_MANIFEST} in it); make one with mtl-export"
    if not file.exists():
        return f"{file}: no such file or bundle; make one with mtl-export"
    return f"{file}: a file, not a bundle (a folder with {_MANIFEST}); make one with mtl-export"


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return [Path(entry.path) for entry, _ in zip(found, range(_LOOKED_AT), strict=False)]
    except OSError:
        return []


def _named(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.suffix.lower() in suffixes]
