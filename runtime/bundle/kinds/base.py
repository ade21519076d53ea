"""What a kind makes of a task's fields: what :class:`~mtl_deploy.runtime.bundle.tasks.Task` needs of it.

Decoding is in :class:`~mtl_deploy.runtime.predictions.decoding.Kind`, which every kind derives from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from mtl_deploy.runtime.bundle.activation import Activation
    from mtl_deploy.runtime.bundle.tasks import Task

SHARED: dict[str, str] = {
    "labels": "",
    "unit": "",
    "scale": "",
    "offset": "",
    "threshold": "only kinds that compare a probability with it have one",
    "stride": "only dense tasks have one",
    "upsample": "only dense tasks have it",
    "argmax": "only segmentation has it",
    "valid_range": "only depth has one",
}
"""Fields of a task that some kinds take, with why others do not."""


class TaskKind:
    """What a kind makes of a task's fields. A kind overrides what differs from a vector of values.

    Attributes:
        name: of the kind, as in the registry.
        called: how messages call a task of this kind.
        takes: which of :data:`SHARED` it takes; a task that gives another one is refused.
        options: a frozen dataclass of the fields that only this kind has, each made by
            :func:`~mtl_deploy.runtime.bundle.kinds.options.option`; its ``__post_init__`` may raise
            :class:`~mtl_deploy.runtime.errors.TaskError`. None: there are none.
        of_classes: whether the output is logits or probabilities, so that a task has an activation.
        of_values: whether each image has numbers that are no classes, each on a scale of its own.
        dense: whether a prediction has one value per pixel of the image.
        of_maps: whether the network's own output is a map ``(N, C, h, w)`` with a stride.
        keeps_shape: whether the network's own output keeps its shape, which the task then has, instead of becoming ``(N, size)``.
        most_outputs: how many of the network's outputs may make up the raw output of one task; the kind's part in ``export/kinds``
            merges them. 0: any number.
        after_colon: which field the text after the colon of ``NAME=KIND:...`` is; empty: ``unit`` or ``labels``, by ``takes``.
        example: a task of this kind as ``--task`` takes it, without the name.
    """

    name: ClassVar[str]
    called: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[type[Any] | None] = None
    of_classes: ClassVar[bool] = False
    of_values: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    of_maps: ClassVar[bool] = False
    keeps_shape: ClassVar[bool] = False
    most_outputs: ClassVar[int] = 1
    after_colon: ClassVar[str] = ""
    example: ClassVar[str]

    @property
    def text_field(self) -> str:
        """Which field the text after the colon of ``NAME=KIND:...`` is."""
        return self.after_colon or ("unit" if "unit" in self.takes else "labels")

    def check(self, task: Task) -> None:
        """Check a task's fields, beyond what holds for all kinds; its size is checked by :meth:`check_size`.

        Raises:
            TaskError: a field is malformed, or two do not fit each other.
        """

    def check_size(self, task: Task, size: int) -> None:
        """Check the size of a task's raw output: values per image, or channels of its map. It is never 0 here.

        Raises:
            TaskError: it does not fit the kind or the labels.
        """

    def misfit(self, size: int, activation: Activation) -> str | None:
        """Say why a task cannot have an activation other than ``none``; None: it can.

        Args:
            size: values per image, or channels; 0 where it is not known yet.
            activation: what the network has applied.
        """
        if self.of_classes:
            return None
        return (
            f"{self.name} values are taken as they are, whatever the network applied; leave activation out (scale and offset "
            "convert a value to its unit)"
        )

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a decoded graph's output for one image.

        Args:
            task: with its size, and with stride or shape where the kind has one.
            height: pixels of the graph's input.
            width: likewise.
        """
        return self.raw_shape(task, height, width)

    def raw_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the network's own output for one image, as a graph with ``logits`` returns it."""
        if self.keeps_shape:
            return task.shape
        if not self.of_maps:
            return (task.size,)
        stride = task.stride or 1
        return task.size, height // stride, width // stride

    def margins_shape(self, task: Task, decoded: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what is recorded for one image to verify engines with, where an output is discrete.

        Args:
            task: with its size.
            decoded: shape of the decoded graph's output for one image.
        """
        return decoded[-2:]

    def decoded_dtype(self, task: Task) -> np.dtype[Any]:
        """Return the type of a decoded graph's output."""
        return np.dtype(np.float32)
