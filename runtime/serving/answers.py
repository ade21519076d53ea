"""What a server answers: predictions and outputs for each image, where a damaged one does not take the others with it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.errors import ImageError, TaskError
from mtl_deploy.runtime.images.loading import prepare_all
from mtl_deploy.runtime.images.parallel import each
from mtl_deploy.runtime.images.tensors import PreparedImages
from mtl_deploy.runtime.model import Model
from mtl_deploy.runtime.predictions.decoding import Prediction


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        predictions: by task; empty with an error.
        outputs: by task the graph's output for this image, as :meth:`~mtl_deploy.runtime.Model.__call__` returns it, without the
            dimension of the batch.
        error: why the image cannot be used.
    """

    predictions: dict[str, Prediction] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)
    error: ImageError | None = None


def answers(model: Model, images: Sequence[Any], tasks: Sequence[str]) -> list[Answer]:
    """Return an answer for each image, in order.

    Images are decoded and resized in several threads, and run in batches as large as the artifact takes.

    Args:
        model: to run.
        images: each as :meth:`~mtl_deploy.runtime.Model.predict` takes one: bytes of an image file, a path, an array.
        tasks: which to compute.

    Raises:
        RunError: the backend failed, which is not an image's fault.
    """
    preprocessing, layout = model.signature.preprocessing, model.array_layout

    def prepared(index: int) -> PreparedImages | ImageError:
        try:
            found = prepare_all(images[index], preprocessing, layout)
            if len(found.placements) != 1:
                raise ImageError(f"got a batch of {len(found.placements)} where one image is expected")
        except ImageError as error:
            return error
        return found

    found = each(prepared, len(images))
    answered = [Answer(error=item) if isinstance(item, ImageError) else Answer() for item in found]
    for positions, rows, outputs in _run(model, found, tasks):
        for row, position in enumerate(positions):
            own = {name: values[row] for name, values in outputs.items()}
            answered[position] = Answer(rows[row], own)
    return answered


def _run(
    model: Model, found: Sequence[PreparedImages | ImageError], tasks: Sequence[str]
) -> list[tuple[list[int], list[dict[str, Prediction]], dict[str, Array]]]:
    """Run those that are usable, all of a size together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for position, item in enumerate(found):
        if not isinstance(item, ImageError):
            sizes.setdefault(item.batches[0][0].shape[1:], []).append(position)
    ran = []
    for positions in sizes.values():
        usable = [item for item in (found[position] for position in positions) if not isinstance(item, ImageError)]
        tensor = np.concatenate([item.batches[0][0] for item in usable])
        placements = tuple(item.placements[0] for item in usable)
        together = PreparedImages(((tensor, tuple(range(len(positions)))),), placements, single=False)
        for part, outputs, rows in model.computed(together, tasks):
            ran.append(([positions[place] for place in part], rows, outputs))
    return ran


def chosen(names: Sequence[str], named: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the tasks that a request names, in the model's order; all where it names none.

    Args:
        names: the model's tasks.
        named: names, or a text with commas between them.

    Raises:
        TaskError: there is no such task.
    """
    parts = named.split(",") if isinstance(named, str) else named or ()
    wanted = [part.strip() for part in parts if part.strip()]
    if missing := [name for name in wanted if name not in names]:
        raise TaskError(f"no task is called {missing[0]!r}; the tasks are {', '.join(names)}")
    return tuple(name for name in names if not wanted or name in wanted)


def image_bytes(item: bytes | str) -> bytes:
    """Return the bytes of an image file from what a request holds: these bytes, or their base64.

    Base64 is what JSON can hold; no image file consists of its letters alone.
    """
    try:
        return base64.b64decode(item, validate=True)
    except ValueError:
        return item if isinstance(item, bytes) else item.encode()
