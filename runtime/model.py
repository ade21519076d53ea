"""A loaded network: call it, predict with it, close it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.schema import MOST_BATCH
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.cuda.arrays import is_on_device, memory_span, stream_handle
from mtl_deploy.runtime.images.batches import pieces
from mtl_deploy.runtime.images.camera import settled_layout
from mtl_deploy.runtime.images.crops import prepare_boxes
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.images.layout import Layout, layout_of
from mtl_deploy.runtime.images.loading import prepare, prepare_all
from mtl_deploy.runtime.images.tensors import PreparedImages
from mtl_deploy.runtime.predictions.decoding import Prediction, decode

from .errors import ImageError, OptionError, RunError, TaskError
from .forks import Origin

if TYPE_CHECKING:
    from mtl_deploy.runtime.images.loading import Images
    from mtl_deploy.runtime.streams.options import Drop, Hooks
    from mtl_deploy.runtime.streams.result import StreamResult
    from mtl_deploy.runtime.streams.stream import Stream
    from mtl_deploy.runtime.streams.submission import Submission


class Model:
    """A loaded network. Safe to call from several threads at once; made by :func:`load`.

    A child that is forked after it was loaded cannot use it (:class:`RunError`). Pickling it, as :mod:`multiprocessing` does to
    pass it to another process, loads it again there, from the same path with the same options.

    Attributes:
        backend: what runs it.
        signature: its tasks, preprocessing and form of its outputs.
        artifact: its entry in the bundle's manifest; None for a lone graph.
        tasks: the tasks that it computes, in the order of the network's outputs.
        layout: the colours of the arrays that it is given, where a call does not say otherwise; for a graph that takes frames of a
            camera, their layout.
        why: why this backend runs it, for people.
    """

    def __init__(
        self,
        backend: Backend,
        signature: Signature,
        artifact: Artifact | None,
        tasks: Sequence[str] | None = None,
        *,
        layout: str | None = None,
        again: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        why: str = "",
    ) -> None:
        """Use :func:`load`; this takes a backend that is ready to run, and for pickling a function with arguments that loads it."""
        self.backend = backend
        self.why = why
        self._again = again
        self._origin = Origin("the model", "load it in the child, or start processes by spawn", backend)
        self.signature = signature
        self.artifact = artifact
        self.layout: str = settled_layout(layout, signature.preprocessing)
        self.tasks: tuple[Task, ...] = (signature if tasks is None else signature.subset(unique_names(tasks))).tasks
        self._outputs = {task.name: task for task in self.tasks}
        self._batch_min, self._batch_max = (1, None) if artifact is None else (artifact.batch_min, artifact.batch_max)
        fixed = backend.inputs[0].shape[0]
        if fixed is not None:
            self._batch_min = self._batch_max = fixed
        self._preprocessing = _of_backend(signature.preprocessing, backend.inputs[0].shape)

    def __call__(
        self,
        images: Images | Any,
        tasks: Sequence[str] | None = None,
        out: Mapping[str, Any] | None = None,
        *,
        layout: str | None = None,
        stream: Any = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once and return the network's outputs.

        Args:
            images: one image or several; see :func:`~mtl_deploy.runtime.images.loading.prepare_all`. An array
                ``(N, height, width, C) uint8`` of the network's size goes to the backend without a copy. An engine also takes
                such an array on the GPU (anything with ``__cuda_array_interface__`` or ``__dlpack__``), also without a copy.
                Where sizes are free, all images of a call are brought to one size.
            tasks: which to return; None: all of :attr:`tasks`. ONNX Runtime and OpenVINO do not compute what only the others need
                (the first call for a selection of tasks makes a session for it); an engine computes all.
            out: arrays to write to, by task, of the result's shapes and types, C-contiguous, writable. The result holds the same
                arrays. ONNX Runtime and OpenVINO write straight into them. With an engine they may be on the GPU, at addresses
                that are multiples of 256.
            layout: of arrays: ``rgb``, ``bgr`` or ``gray``; None: :attr:`layout`. Only ``rgb`` goes to the backend without a
                copy, and for a network of gray, one channel.
            stream: for an engine, the CUDA stream to work on: its handle as an integer, or a stream of PyTorch, CuPy, pycuda or
                cuda.core. None: the runtime's own, which waits for the input's producer, and which the call waits for.
            on_device: leave an engine's outputs on the GPU, as :class:`~mtl_deploy.runtime.DeviceArray`. With a ``stream`` the
                call then returns without waiting; the CPU must not overwrite the input before the stream is done.

        Returns:
            by task, ``(N, size) float32``: probabilities and scaled values, or logits (``signature.outputs`` says which). Dense
            tasks have maps at the network's size, including the border of a letterbox: ``(N, *signature.sample_shape(name))`` of
            type ``signature.dtype(name)``. Later calls do not change them.

        Raises:
            ImageError: images or buffers have another shape or dtype than expected, or there are too many.
            TaskError: a task does not exist, or was left out at loading.
            OptionError: there is no such layout, or the graph takes frames of another.
            RunError: the backend failed; :class:`DeviceMemoryError` and :class:`DeviceLostError` distinguish the GPU's failures.
            BackendError: ``stream``, ``on_device`` or arrays on the GPU were passed, and this model runs no engine.
        """
        self._origin.check()
        tensor, _ = prepare(images, self._preprocessing, self._layout(layout))
        self._check_batch(tensor.shape[0])
        names = list(self._outputs) if tasks is None else self._chosen(tasks)
        if out:
            self._check_buffers(out, names, tensor)
        if stream is None and not on_device:
            return self.backend.run({INPUT_NAME: tensor}, names, out)
        handle = None if stream is None else stream_handle(stream)
        return self.backend.run({INPUT_NAME: tensor}, names, out, stream=handle, on_device=on_device)

    def pinned(self, batch: int) -> Array:
        """Return an input array for an engine in page-locked memory: calls with it save a copy.

        Args:
            batch: number of images.

        Raises:
            OptionError: this model runs no engine.
        """
        self._origin.check()
        make = getattr(self.backend, "pinned", None)
        if make is None:
            raise OptionError(
                f"page-locked memory is for engines only; this model runs on {self.backend.details}: use any array"
            )
        array: Array = make(batch, self._preprocessing.input_shape)
        return array

    def predict(
        self,
        images: Images,
        tasks: Sequence[str] | None = None,
        *,
        layout: str | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        margin: float = 0.0,
    ) -> Any:
        """Run on any number of images and decode.

        Args:
            images: see :func:`~mtl_deploy.runtime.images.loading.prepare_all`. More images than one batch holds are run in several
                batches; so are images of several sizes, where sizes are free.
            tasks: which to compute; None: all of :attr:`tasks`.
            layout: of arrays: ``rgb``, ``bgr`` (OpenCV's frames) or ``gray``; None: :attr:`layout`. A graph that takes frames of a
                camera knows theirs; anything else is an error.
            boxes: to cut out of one image and to predict each by itself, such as faces: ``(x, y, width, height)`` in the image's
                pixels, upright by its EXIF orientation. They run as one batch. None: the whole image.
            margin: that is cut out around each box, on each side: a share of its width and height.

        Returns:
            For one image a dict, by task a :class:`~mtl_deploy.runtime.predictions.decoding.Prediction`; for a list or a batch
            a list of such dicts. (Which of the two depends on an array's dimensions, so types cannot tell.) Values of dense
            tasks are arrays at each image's original size. With boxes a list, one dict per box, in the image's own coordinates:
            points and boxes in its pixels, dense values at its size, where pixels around the box count as not seen.

        Raises:
            ImageError: an image cannot be read or has another shape or dtype than expected.
            TaskError: a task does not exist, or was left out at loading.
            OptionError: there is no such layout, the graph takes frames of another, or the margin is none.
            RunError: the backend failed.
        """
        self._origin.check()
        if boxes is None:
            if margin:
                raise OptionError(
                    f"margin {margin!r} is cut out around boxes, and there are none; pass boxes, or leave it out"
                )
            prepared = prepare_all(images, self._preprocessing, self._layout(layout))
        else:
            prepared = prepare_boxes(images, boxes, margin, self._preprocessing, self._layout(layout))
        names = list(self._outputs) if tasks is None else self._chosen(tasks)
        predictions: dict[int, dict[str, Prediction]] = {}
        for positions, _, rows in self.computed(prepared, names):
            predictions |= zip(positions, rows, strict=True)
        return predictions[0] if prepared.single else [predictions[position] for position in range(len(predictions))]

    def computed(
        self, prepared: PreparedImages, tasks: Sequence[str]
    ) -> Iterator[tuple[tuple[int, ...], dict[str, Array], list[dict[str, Prediction]]]]:
        """Run images that are prepared, batch by batch, and decode: for servers, which give both.

        Args:
            prepared: by :func:`~mtl_deploy.runtime.images.loading.prepare_all`.
            tasks: which to compute.

        Yields:
            of each batch the positions of its images, the outputs as :meth:`__call__` returns them (with rows of padding behind
            those of the images, where the artifact takes no smaller batch), and the predictions of each image.
        """
        self._origin.check()
        for tensor, positions in prepared.batches:
            done = 0
            for piece in self._pieces(tensor):
                part = positions[done : done + piece.shape[0]]  # without the padding of the last batch
                outputs = self._run(piece, tasks)
                yield part, outputs, self._decode(outputs, [prepared.placements[position] for position in part])
                done += len(part)

    def stream(
        self,
        every: Mapping[str, int] | None = None,
        *,
        queue: int = 2,
        drop: Drop = "oldest",
        tasks: Sequence[str] | None = None,
        batch: int | None = None,
        results: int = 8,
        hooks: Hooks = (),
        callback: Callable[[StreamResult], object] | None = None,
    ) -> Stream:
        """Open a stream: frames are submitted, their results come in order; preparing, running and decoding overlap.

        Args:
            every: by task, the frames of a source from one computation to the next: ``{"race": 10}`` computes it for every
                tenth; results between have its last value. On processors the graph that is cut to the due tasks runs, with a
                session for each set of tasks that are due together (those for all tasks, and for those of every frame, are made
                now, others when they are first needed); an engine computes all.
            queue: the most frames of one source that wait to be prepared.
            drop: what happens to one more: the ``"oldest"`` that waits is dropped, or the ``"newest"``, which is this one, or
                :meth:`~mtl_deploy.runtime.streams.stream.Stream.submit` has to ``"wait"``.
            tasks: which to compute; None: all of :attr:`tasks`.
            batch: the most frames of several sources that run together; None: as many as the artifact takes.
            results: the most results that wait to be collected; with more, the stream pauses.
            hooks: callables that get and return each result before it is delivered, in this order, see
                :mod:`mtl_deploy.runtime.streams.hooks`; or a dict with such a list for each source, and for ``(source, key)``
                where an object in boxes has hooks of its own.
            callback: gets each result, one at a time, in the stream's own thread. None: collect them from the stream.

        Raises:
            OptionError: a number is out of range, or a word is unknown.
            TaskError: a task does not exist, or was left out at loading.
            RunError: this is a forked child.
        """
        from mtl_deploy.runtime.streams.options import StreamOptions
        from mtl_deploy.runtime.streams.stages import Steps
        from mtl_deploy.runtime.streams.stream import Stream

        self._origin.check()
        chosen = list(self._outputs) if tasks is None else self._chosen(tasks)
        names = tuple(name for name in self._outputs if name in chosen)
        most = MOST_BATCH if self._batch_max is None else self._batch_max
        rates: Mapping[str, int] = {} if every is None else every
        options = StreamOptions(names, rates, queue, drop, most if batch is None else batch, results, hooks, callback)
        options = replace(options, batch=min(options.batch, most), every=dict(rates))
        if (warm := getattr(self.backend, "warm", None)) is not None:
            for due in options.usual_tasks:
                warm(due)
        return Stream(Steps(self._prepare_frame, self._run_frames, self._decode), options)

    @property
    def array_layout(self) -> Layout:
        """What :func:`~mtl_deploy.runtime.images.loading.prepare_all` is to be told of arrays where a call says nothing."""
        return self._layout(None)

    @property
    def batch_range(self) -> str:
        """For people: the batches that the artifact takes."""
        if self._batch_max is None:
            return f"{self._batch_min} or more"
        if self._batch_min == self._batch_max:
            return f"exactly {self._batch_min}"
        return f"{self._batch_min} to {self._batch_max}"

    def close(self) -> None:
        """Free the backend. A closed model cannot run; closing twice is allowed. In a forked child nothing is freed."""
        if not self._origin.forked:
            self.backend.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self._again is None:
            raise OptionError(
                "this model was not made by load(), so it cannot be pickled: load it in the other process"
            )
        return self._again

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        what = "lone graph" if self.artifact is None else self.artifact.path
        return f"<Model {what}: {', '.join(self._outputs)}; {self.backend.details}>"

    def _prepare_frame(self, frame: Any, how: Submission) -> PreparedImages:
        """Prepare one frame of a stream, or the boxes in it; a tuple is several images that are one input."""
        layout = self._layout(how.layout)
        if how.boxes is not None:
            return prepare_boxes(frame, how.boxes, how.margin, self._preprocessing, layout)
        return prepare_all([frame] if isinstance(frame, tuple) else frame, self._preprocessing, layout)

    def _run_frames(self, tensor: Any, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Run batches of what the artifact takes, the last one filled up to the smallest."""
        for piece in self._pieces(tensor):
            yield self._run(piece, names)

    def _run(self, piece: Any, names: Sequence[str]) -> dict[str, Any]:
        outputs = self.backend.run({INPUT_NAME: piece}, names)
        self._check_outputs(outputs, piece.shape)
        return outputs

    def _layout(self, layout: str | None) -> Layout:
        """Return what arrays hold; pictures alone have one where the graph takes frames of a camera, and that is their own."""
        settled = self.layout if layout is None else settled_layout(layout, self._preprocessing)
        return "rgb" if self._preprocessing.source is not None else layout_of(settled)

    def _check_batch(self, count: int) -> None:
        if count < self._batch_min or (self._batch_max is not None and count > self._batch_max):
            raise ImageError(f"got a batch of {count}; this artifact takes {self.batch_range}")

    def _pieces(self, tensor: Any) -> Iterator[Any]:
        if not isinstance(tensor, np.ndarray):  # on the GPU: cannot be cut here
            self._check_batch(tensor.shape[0])
            yield tensor
            return
        yield from pieces(tensor, self._batch_max or len(tensor), least=self._batch_min)

    def _check_outputs(self, outputs: Mapping[str, Array], tensor: tuple[int, ...]) -> None:
        """Check what is only known once a graph has run: sizes that it leaves open."""
        for name, output in outputs.items():
            if output.shape != (shape := self._output_shape(name, tensor)):
                raise RunError(
                    f"task {name!r}: the graph returns {output.shape} for {tensor[0]} images, by its metadata {shape}; export again"
                )

    def _output_shape(self, name: str, tensor: tuple[int, ...]) -> tuple[int, ...]:
        if self._preprocessing.source is not None:
            return tensor[0], *self.signature.sample_shape(name)
        sides = tensor[1:3] if self._preprocessing.input == "uint8" else tensor[2:4]
        return tensor[0], *self.signature.sample_shape(name, *sides)

    def _decode(
        self, outputs: Mapping[str, Array], placements: Sequence[ImagePlacement]
    ) -> list[dict[str, Prediction]]:
        """Decode the outputs of the images, and drop those of a batch's padding."""
        form = self.signature.outputs
        columns = [
            decode(self._outputs[name], output[: len(placements)], form, placements) for name, output in outputs.items()
        ]
        return [{prediction.task: prediction for prediction in row} for row in zip(*columns, strict=True)]

    def _chosen(self, tasks: Iterable[str]) -> list[str]:
        wanted = unique_names(tasks)
        for name in wanted:
            if name not in self._outputs:
                raise TaskError(f"no task is called {name!r}; this model computes {', '.join(self._outputs)}")
        return wanted

    def _check_buffers(self, out: Mapping[str, Any], names: Sequence[str], images: Any) -> None:
        tensor = tuple(images.shape)
        for name, buffer in out.items():
            if name not in names:
                raise TaskError(
                    f"out has a buffer for {name!r}, which is not computed; this call computes {', '.join(names)}"
                )
            if is_on_device(buffer):
                continue  # the backend checks it
            shape, dtype = self._output_shape(name, tensor), self.signature.dtype(name)
            if buffer.shape != shape or buffer.dtype != dtype:
                raise ImageError(f"out[{name!r}] is {buffer.dtype} {buffer.shape}; expected {dtype} {shape}")
            if not (buffer.flags.c_contiguous and buffer.flags.writeable):
                raise ImageError(f"out[{name!r}] must be C-contiguous and writable")
        _check_apart({f"out[{name!r}]": buffer for name, buffer in out.items()} | {"the images": images})


def _check_apart(buffers: Mapping[str, Any]) -> None:
    """Check that no two arrays share memory: writing to one would change the other."""
    spans = sorted((*span, name) for name, buffer in buffers.items() if (span := memory_span(buffer)) is not None)
    for (where, _, end, name), (there, start, _, other) in pairwise(spans):
        if where == there and start < end:
            raise ImageError(f"{name} and {other} share memory; pass a separate array for each task")


def _of_backend(preprocessing: Preprocessing, image: tuple[int | None, ...]) -> Preprocessing:
    """Return the preprocessing for this artifact: it may have fixed sizes where the network's are free."""
    height, width = image[1:3] if preprocessing.input == "uint8" else image[2:4]
    if not preprocessing.multiple or height is None or width is None:
        return preprocessing
    return replace(preprocessing, multiple=0, height=height, width=width)


def unique_names(tasks: Iterable[str]) -> list[str]:
    """Return the names of the requested tasks, each once.

    Raises:
        TaskError: there are none, or one string stands in for a list.
    """
    if isinstance(tasks, str):
        raise TaskError(f"tasks={tasks!r} is one string; pass a sequence of names, such as ({tasks!r},)")
    names = list(dict.fromkeys(tasks))
    if not names:
        raise TaskError("no task is named; name at least one, or leave tasks out for all")
    return names
