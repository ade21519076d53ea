"""One line for each frame, in words or as JSON, written at once so that another program can follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from mtl_deploy.runtime.console.redacted import redacted
from mtl_deploy.runtime.console.visible import unread, visible
from mtl_deploy.runtime.errors import MtlError, RunError
from mtl_deploy.runtime.files.reading import describe
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.streams.result import StreamResult

from .play import Shot


class NobodyReadsError(Exception):
    """Ends sources whose predictions nobody reads, and which nothing else would end."""


class Lines:
    """Writes a line for each result.

    Args:
        out: where to.
        as_json: JSON in place of words.
        many: whether there are several sources, whose names words then begin with.
        needed: whether nothing but these lines is wanted of a source that does not end.
    """

    def __init__(self, out: TextIO, *, as_json: bool, many: bool, needed: bool) -> None:
        self._out, self._as_json, self._many, self._needed = out, as_json, many, needed

    def __call__(self, result: StreamResult, shot: Shot, rate: float) -> None:
        """Write one.

        Raises:
            NobodyReadsError: the reader has gone away, and the lines were needed.
            RunError: the line cannot be written, such as on a full disk.
        """
        line = _as_json(result, shot, rate) if self._as_json else self._words(result, shot, rate)
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except OSError as error:
            raise RunError(f"the output: {describe(error)}") from error
        if self._needed and unread(self._out):
            raise NobodyReadsError

    def _words(self, result: StreamResult, shot: Shot, rate: float) -> str:
        name = f"{result.source}, " if self._many else ""
        if result.error is not None:
            said = str(result.error)
        elif result.boxes is None:
            said = _said(result.predictions)
        else:
            said = "; ".join(f"box {box.key}: {_said(box.predictions, ', ')}" for box in result.boxes)
        return visible(f"{name}frame {shot.number}, {rate:.1f} per second: {said}")


def _said(predictions: Mapping[str, Prediction], between: str = "; ") -> str:
    return between.join(f"{name} {prediction}" for name, prediction in predictions.items())


def _as_json(result: StreamResult, shot: Shot, rate: float) -> str:
    entry: dict[str, Any] = {
        "source": str(result.source),
        "frame": shot.number,
        "time": round(shot.time, 3),
        "latency_ms": round(1000 * result.latency, 2),
        "frames_per_s": round(rate, 2),
    }
    if result.error is not None:
        message = str(result.error) if isinstance(result.error, MtlError) else repr(result.error)
        entry["error"] = redacted(message)
    elif result.boxes is None:
        entry |= _tasks(result)
    else:
        entry["boxes"] = [{"box": list(one.box or ()), **_tasks(one)} for one in result.boxes]
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _tasks(result: StreamResult) -> dict[str, Any]:
    """Return predictions, and the ages of those that were computed for an earlier frame."""
    found: dict[str, Any] = {"tasks": {name: one.to_dict() for name, one in result.predictions.items()}}
    if result.ages:
        ages = {name: {"frames": age.frames, "seconds": round(age.seconds, 3)} for name, age in result.ages.items()}
        found["ages"] = ages
    return found
