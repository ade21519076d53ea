"""Predictions of any number of files, in order, with memory that does not grow with their number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.errors import ImageError, RunError
from mtl_deploy.runtime.predictions.decoding import Prediction, kind_of

if TYPE_CHECKING:
    from mtl_deploy.runtime.model import Model
    from mtl_deploy.runtime.streams.stream import Stream

Box = tuple[float, ...]
"""``x, y, width, height`` in pixels of the image."""
Boxes = Callable[[Path], Sequence[Box]]
"""Gives the boxes in an image."""

_BATCH = 16  # images that run together, where the artifact takes so many


@dataclass(frozen=True)
class Outcome:
    """What is known about one file.

    Attributes:
        file: the image.
        predictions: by task; empty where there is an error, or boxes were cut out.
        cut: the boxes that were cut out; None: the image was taken whole.
        boxes: the predictions of each box.
        error: why it has no predictions; None: it has.
    """

    file: Path
    predictions: Mapping[str, Prediction]
    cut: Sequence[Box] | None = None
    boxes: Sequence[Mapping[str, Prediction]] = ()
    error: ImageError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON: ``image`` with ``tasks``, or with ``boxes``, or with its ``error``."""
        entry: dict[str, Any] = {"image": str(self.file)}
        if self.error is not None:
            return entry | {"error": str(self.error)}
        if self.cut is None:
            return entry | {"tasks": _tasks(self.predictions)}
        rows = zip(self.cut, self.boxes, strict=True)
        return entry | {"boxes": [{"box": list(box), "tasks": _tasks(row)} for box, row in rows]}


def _tasks(predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    return {name: prediction.to_dict() for name, prediction in predictions.items()}


def outcomes(
    model: Model, files: Sequence[Path], boxes: Boxes | None = None, margin: float = 0.0
) -> Generator[Outcome, None, None]:
    """Predict files and yield what came of each, in order.

    Files are decoded in threads while others run, several in one batch. Where a task has a value per pixel, they are predicted one
    by one, and each is freed before the next: such maps are large.

    Args:
        model: predicts.
        files: images.
        boxes: gives those to cut out of an image; None: images are taken whole.
        margin: around each box.

    Raises:
        MtlError: the work itself failed. A bad image does not end it.
    """
    if len(files) < 2 or any(kind_of(task.kind).dense for task in model.tasks):
        yield from (_one(model, file, boxes, margin) for file in files)
        return
    with closing(model.stream(batch=_BATCH, queue=1, drop="wait", results=_BATCH)) as stream:
        feeder = threading.Thread(target=_submit_all, args=(stream, files, boxes, margin), name="mtl-bulk", daemon=True)
        feeder.start()
        for result in stream:
            if result.error is not None and not isinstance(result.error, ImageError):
                raise result.error
            file, cut = result.tag
            yield Outcome(file, result.predictions, cut, [one.predictions for one in result.boxes or ()], result.error)


def _submit_all(stream: Stream, files: Sequence[Path], boxes: Boxes | None, margin: float) -> None:
    """Submit all files. Each source has one frame that waits, so that they run in order, as many together as there are sources."""
    try:
        for number, file in enumerate(files):
            cut = None if boxes is None else boxes(file)
            around = margin if cut is not None else 0.0
            stream.submit(file, source=number % _BATCH, tag=(file, cut), boxes=cut, margin=around)
        stream.finish()
    except RunError:  # closed meanwhile
        return


def _one(model: Model, file: Path, boxes: Boxes | None, margin: float) -> Outcome:
    cut = None if boxes is None else boxes(file)
    try:
        if cut is None:
            return Outcome(file, model.predict(file))
        return Outcome(file, {}, cut, model.predict(file, boxes=cut, margin=margin))
    except ImageError as error:
        return Outcome(file, {}, cut, error=error)
