"""Where ``mtl-infer --show`` writes its pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.output_file import check_outputs
from mtl_deploy.runtime.files.reading import describe
from mtl_deploy.runtime.images.files import SUFFIXES

from .video import SUFFIXES as VIDEOS
from .video import WINDOW

_LONGEST = 200  # bytes of a name without suffix


def show_targets(show: str | None, files: Sequence[Path], videos: Sequence[Path], *, force: bool) -> list[Path | None]:
    """Return the path of each file's picture, or of the video's, once it is checked that they can be written; None for none.

    Args:
        show: the option's value: a file, a folder where there are several images, or a window for a video.
        files: the images.
        videos: the video or camera, or none.
        force: replace existing files. An input is never replaced.

    Raises:
        OptionError: pictures cannot go there.
    """
    if show is None:
        return [None] * max(len(files), len(videos))
    target = Path(show)
    if videos:
        if show != WINDOW and target.suffix.lower() not in VIDEOS:
            raise OptionError(f"--show {show}: a video goes to another video file, such as out.mp4, or to a window")
        if show != WINDOW:
            check_outputs("--show", [target], videos, force=force)
        return [target]
    if show == WINDOW:
        raise OptionError("--show window: for a video or a camera; pictures go to a file, such as overlay.png")
    single = len(files) == 1
    if single and target.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--show {show}: use the suffix of an image, such as .png")
    if not single and target.suffix.lower() in SUFFIXES:
        raise OptionError(f"--show {show}: {len(files)} images go to a folder; name one")
    targets = [target] if single else [target / f"{name}.png" for name in picture_names(files)]
    check_outputs("--show", targets, files, force=force)
    try:
        (target.parent if single else target).mkdir(parents=not single, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OptionError(f"--show {show}: {describe(error)}") from error
    return list(targets)


def picture_names(files: Sequence[Path]) -> list[str]:
    """Return a name for each file's picture, without suffix: no two are the same, not even when case is ignored.

    A file's own name without its suffix, where no other has it; otherwise with the folders before it and with the suffix, as far
    as needed to tell the files apart; and with numbers where that is not enough.
    """
    forms = [
        [_short(file.stem) for file in files],
        [_short("_".join(_parts(file.with_suffix("")))) for file in files],
        [_short("_".join(_parts(file)).replace(".", "_")) for file in files],
    ]
    names: list[str | None] = [None] * len(files)
    taken: set[str] = set()
    for form in forms:
        open_places = [place for place, name in enumerate(names) if name is None]
        counts: dict[str, int] = {}
        for place in open_places:
            counts[form[place].casefold()] = counts.get(form[place].casefold(), 0) + 1
        for place in open_places:
            key = form[place].casefold()
            if counts[key] == 1 and key not in taken:
                names[place] = form[place]
                taken.add(key)
    for place, name in enumerate(names):
        if name is None:
            names[place] = _numbered(forms[-1][place], taken)
    return [name for name in names if name is not None]


def _numbered(name: str, taken: set[str]) -> str:
    number = 2
    while (found := f"{name}_{number}").casefold() in taken:
        number += 1
    taken.add(found.casefold())
    return found


def _short(name: str) -> str:
    """Return the end of a name that is longer than file systems take, with room for a number and a suffix."""
    return os.fsencode(name)[-_LONGEST:].decode(errors="ignore") if len(os.fsencode(name)) > _LONGEST else name


def _parts(file: Path) -> list[str]:
    return [part for part in file.parts if part not in ("/", "..")]
