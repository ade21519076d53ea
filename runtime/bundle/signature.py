"""What a deployed graph takes and gives: its tasks, its preprocessing, and whether its outputs are decoded.

The same record stands in a bundle's manifest and in each graph's ONNX metadata, so that a lone ``.onnx`` can still be decoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np

from mtl_deploy.runtime.errors import BundleError, OptionError, TaskError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError, parse_json, shown

from .preprocessing import Preprocessing
from .schema import MOST_PIXELS, SIGNATURE
from .tasks import Task, check_tasks

METADATA_KEY = "mtl_deploy"  # the key in ONNX metadata_props
SIGNATURE_VERSION = 1
INPUT_NAME = "image"

Outputs = Literal["decoded", "logits"]


@dataclass(frozen=True)
class Signature:
    """The contract of a deployed graph.

    Attributes:
        tasks: the tasks, in the order of the graph's outputs; each output has its task's name.
        preprocessing: what happens to an image before the network sees it, and which part of it the graph does.
        outputs: ``decoded`` where the graph ends in probabilities and scaled values, ``logits`` where it returns
            the network's raw outputs.
    """

    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    outputs: Outputs = "decoded"

    def __post_init__(self) -> None:
        """Check that the strides of dense tasks divide the sizes of images.

        Raises:
            TaskError: the multiple of free sizes, or a fixed size, is not a multiple of a stride.
        """
        preprocessing = self.preprocessing
        for task in self.tasks:
            if not task.stride:
                continue
            if preprocessing.multiple % task.stride:
                raise TaskError(
                    f"task {task.name!r} has stride {task.stride}, but heights and widths are multiples of "
                    f"{preprocessing.multiple}; use a multiple of {task.stride}"
                )
            if preprocessing.height % task.stride or preprocessing.width % task.stride:
                raise TaskError(
                    f"task {task.name!r} has stride {task.stride}, which does not divide the image size "
                    f"{preprocessing.height}x{preprocessing.width}; choose a size that it divides"
                )

    def task(self, name: str) -> Task:
        """Return the task of this name.

        Raises:
            TaskError: there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise TaskError(f"no task is called {name!r}; the tasks are {', '.join(task.name for task in self.tasks)}")

    def sample_shape(self, task_name: str, height: int | None = None, width: int | None = None) -> tuple[int, ...]:
        """Return the shape of a task's output for one image, as the graph returns it.

        Args:
            task_name: the task's name.
            height: pixels of the graph's input; None: the preprocessing's.
            width: likewise.

        Returns:
            ``(size,)``; for a raw task its own shape; for a dense task ``(C, h, w)`` (raw outputs, logits of a segmentation,
            normals) or ``(H', W')`` (class
            indices, decoded depth). ``h`` is the input's height divided by the task's stride, ``H'`` the input's height where
            the graph resizes the output to it, otherwise ``h``.

        Raises:
            TaskError: there is no such task, or the sides are no multiples of its stride.
        """
        task = self.task(task_name)
        height = self.preprocessing.height if height is None else height
        width = self.preprocessing.width if width is None else width
        stride = task.stride or 1
        if height % stride or width % stride:
            raise TaskError(
                f"task {task.name!r} has stride {stride}, which does not divide an image of {height}x{width}"
            )
        if self.outputs == "logits":
            return task.of.raw_shape(task, height, width)
        return task.of.decoded_shape(task, height, width)

    def dtype(self, task_name: str) -> np.dtype[Any]:
        """Return the type of a task's output: float32; for class indices uint8, or int32 where there are more than 256 classes.

        Raises:
            TaskError: there is no such task.
        """
        task = self.task(task_name)
        return np.dtype(np.float32) if self.outputs == "logits" else task.of.decoded_dtype(task)

    def subset(self, names: Iterable[str]) -> Signature:
        """Return the signature of a graph that serves only the named tasks, in the order of the network.

        Raises:
            TaskError: a name is not a task's.
        """
        wanted = list(names)
        known = [task.name for task in self.tasks]
        for name in wanted:
            if name not in known:
                raise TaskError(f"no task is called {name!r}; the tasks are {', '.join(known)}")
        return replace(self, tasks=tuple(task for task in self.tasks if task.name in wanted))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "version": SIGNATURE_VERSION,
            "tasks": [task.to_dict() for task in self.tasks],
            "preprocessing": self.preprocessing.to_dict(),
            "outputs": self.outputs,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Signature:
        """Read :meth:`to_dict`'s result back.

        Args:
            data: the record.
            where: how errors call the file that holds it.

        Raises:
            BundleError: the record has another version or is malformed.
        """
        if data.get("version") != SIGNATURE_VERSION:
            raise BundleError(
                f"{where}: signature version {shown(data.get('version'))}, this release reads {SIGNATURE_VERSION}; "
                "export again, or install the release that wrote it"
            )
        try:
            check(data, SIGNATURE)
            outputs = data["outputs"]
            if outputs not in get_args(Outputs):
                raise BundleError(f"{where}: outputs {shown(outputs)} is none of {', '.join(get_args(Outputs))}")
            pixels = data["preprocessing"]["height"] * data["preprocessing"]["width"]
            if pixels > MOST_PIXELS:
                raise BundleError(f"{where}: images of {pixels} pixels; the runtime takes {MOST_PIXELS} at most")
            return cls(
                tasks=check_tasks(Task.from_dict(task, where=f"{where}: task") for task in data["tasks"]),
                preprocessing=Preprocessing.from_dict(data["preprocessing"]),
                outputs=cast("Outputs", outputs),
            )
        except (DocumentError, TaskError, OptionError) as error:
            raise BundleError(f"{where}: malformed signature: {error}; export again") from error

    def to_json(self) -> str:
        """Return the record as the one line that ONNX metadata holds."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str) -> Signature:
        """Read :meth:`to_json`'s result back.

        Raises:
            BundleError: the text is no JSON object, or :meth:`from_dict` refuses it.
        """
        try:
            data = parse_json(text)
        except DocumentError as error:
            raise BundleError(f"{where}: its record of tasks: {error}; export it again") from error
        if not isinstance(data, dict):
            raise BundleError(f"{where}: its record of tasks is not a JSON object; export it again")
        return cls.from_dict(data, where)
