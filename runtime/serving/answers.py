"""What a server answers: predictions and outputs for each image, where a damaged one does not take the others with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.errors import ImageError
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
