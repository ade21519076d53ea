"""What may be named in the place of an image: a video file, a camera, a network stream, a GStreamer pipeline, or a pipe."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mtl_deploy.runtime.console.redacted import redacted_source
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.show.video import SUFFIXES

Kind = Literal["file", "camera", "url", "pipeline", "pipe"]

CAMERA = "camera:"
PIPE = "-"
PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322}
"""Schemes that are opened by a connection, with the ports that they use by default."""
SCHEMES = (*PORTS, "rtp", "srt", "tcp", "udp")


@dataclass(frozen=True)
class Source:
    """Where frames come from.

    Attributes:
        kind: of it.
        text: as it was given; it may hold a password.
        label: as it is printed and logged, without credentials; no two sources of a run have the same.
    """

    kind: Kind
    text: str
    label: str

    @property
    def live(self) -> bool:
        """Whether its frames come when they come; a file waits."""
        return self.kind != "file"


def source_of(text: str) -> Source | None:
    """Return what a text names; None: an image or a folder, as far as its form tells.

    Raises:
        OptionError: it looks like a camera or an address, and is none that can be opened.
    """
    kind = _kind_of(text)
    return None if kind is None else Source(kind, text, "stdin" if kind == "pipe" else redacted_source(text))


def _kind_of(text: str) -> Kind | None:
    if text == PIPE:
        return "pipe"
    if os.path.lexists(text) and not _is_device(text):  # whatever it is called like
        return "file" if Path(text).suffix.lower() in SUFFIXES else None
    if " ! " in text:
        return "pipeline"
    if text.startswith(CAMERA):
        if not text.removeprefix(CAMERA).isdecimal():
            raise OptionError(f"{text}: write {CAMERA}N with the camera's number, such as {CAMERA}0")
        return "camera"
    if _is_device(text):
        return "camera"
    scheme, separator, _ = text.partition("://")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        if scheme.lower() not in SCHEMES:
            raise OptionError(f"{redacted_source(text)}: addresses begin with {', '.join(SCHEMES)}")
        return "url"
    return "file" if Path(text).suffix.lower() in SUFFIXES else None


def _is_device(text: str) -> bool:
    """Return whether a path is that of a camera, plugged in or not."""
    if re.fullmatch(r"/dev/(video\d+|v4l/.+)", text):
        return True
    try:
        return stat.S_ISCHR(Path(text).stat().st_mode)
    except (OSError, ValueError):
        return False


def told_apart(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with labels that differ: those that are alike without their credentials get numbers.

    Raises:
        OptionError: standard input is named twice, or a file beside another source.
    """
    if sum(source.kind == "pipe" for source in sources) > 1:
        raise OptionError("-: standard input is one source; name it once")
    if len(sources) > 1 and (file := next((one for one in sources if not one.live), None)) is not None:
        raise OptionError(f"{file.label}: pass a video file by itself")
    labels = [source.label for source in sources]
    numbered = []
    for place, source in enumerate(sources):
        number = labels[: place + 1].count(source.label)
        alike = labels.count(source.label) > 1
        numbered.append(replace(source, label=f"{source.label} #{number}") if alike else source)
    return numbered
