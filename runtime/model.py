"""The public door: load a bundle or a graph, call it, let it predict, close it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Array, Backend
from .bundle import MANIFEST, Artifact, find_bundle, open_bundle
from .decoding import Prediction, decode
from .errors import BackendError, BundleError, ImageError, OptionError, TaskError
from .images import prepare
from .selection import BACKENDS, select
from .signature import INPUT_NAME, METADATA_KEY, Signature
from .tasks import Task

if TYPE_CHECKING:
    from .images import Images


def load(
    path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    backend: str | None = None,
    providers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
    spinning: bool = True,
) -> Model:
    """Load a bundle, or one graph.

    A file of a bundle is read only if its SHA-256 is the manifest's.

    Args:
        path: a bundle (its folder or its ``manifest.json``), a graph in one (such as ``separate/age.onnx``), or a lone ``.onnx``
            that ``mtl-export`` wrote.
        precision: ``fp32`` or ``fp16``; None: fp16 on a CUDA device where the bundle has it, otherwise fp32 (processors
            compute FP16 graphs in FP32, with conversions on top).
        backend: ``onnxruntime``; None: the one that fits.
        providers: ONNX Runtime's execution providers, in order of preference (``CUDA`` or ``CUDAExecutionProvider``); None: CUDA
            where the machine has a device, then CPU.
        tasks: the tasks that will be asked for; None: all. The others are never computed.
        threads: threads inside an operator; None: one a physical core.
        spinning: whether idle threads spin: less latency, at the price of the processor.

    Raises:
        BundleError: no bundle or graph of ours, or another release's; :class:`IntegrityError` for a changed file.
        BackendError: nothing installed here can run it as asked.
        TaskError: a task does not exist.
    """
    file = Path(path)
    if file.is_dir() or file.name == MANIFEST:
        bundle = open_bundle(file)
        chosen = select(bundle, precision=precision, backend=backend, providers=providers)
        artifact: Artifact | None = chosen
        read: Callable[[], bytes] = partial(bundle.read, chosen)
        where = str(bundle.path / chosen.path)
    else:
        if precision is not None:
            raise OptionError(f"{file} is one graph, precision={precision!r} chooses among a bundle's; leave it out")
        artifact, read = _find_graph(file)
        where = str(file)
    if backend not in (None, *BACKENDS):
        raise BackendError(f"backend {backend!r}: this release has {', '.join(BACKENDS)}")
    from .onnxruntime_backend import OnnxRuntimeBackend

    outputs = None if tasks is None else _names(tasks)
    runner = OnnxRuntimeBackend(
        read, where=where, providers=providers, threads=threads, outputs=outputs, spinning=spinning
    )
    try:
        return Model(runner, _signature(runner, where), artifact, tasks)
    except BaseException:
        runner.close()
        raise


class Model:
    """A loaded network. Safe to call from several threads at once; made by :func:`load`.

    Attributes:
        backend: what runs it.
        signature: its tasks, preprocessing and form of outputs.
        artifact: its entry in the bundle's manifest; None for a lone graph.
        tasks: the tasks that it computes, in the order of the network's outputs.
    """

    def __init__(
        self, backend: Backend, signature: Signature, artifact: Artifact | None, tasks: Sequence[str] | None = None
    ) -> None:
        """Use :func:`load`; this takes a backend that is ready to run."""
        self.backend = backend
        self.signature = signature
        self.artifact = artifact
        self.tasks: tuple[Task, ...] = (signature if tasks is None else signature.subset(_names(tasks))).tasks
        self._outputs = {task.name: task for task in self.tasks}
        self._batch_min, self._batch_max = (1, None) if artifact is None else (artifact.batch_min, artifact.batch_max)
        fixed = backend.inputs[0].shape[0]
        if fixed is not None:
            self._batch_min = self._batch_max = fixed

    def __call__(
        self, images: Images, tasks: Sequence[str] | None = None, out: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run once and return the graph's own outputs.

        Args:
            images: one image or several; see :func:`~mtl_deploy.runtime.images.prepare`. An array
                ``(N, height, width, 3) uint8`` of the network's size goes to the backend without a copy.
            tasks: which to compute; None: all of :attr:`tasks`. What serves the others alone is not computed: the first call
                for a choice of tasks makes a session of its own for it.
            out: arrays to write to, by task: ``(N, size) float32``, C-contiguous, writable. The result holds the same arrays.

        Returns:
            by task, ``(N, size) float32``: probabilities and scaled values, or logits (``signature.outputs`` says which).
            A later call does not touch them.

        Raises:
            ImageError: images or buffers have another shape or dtype than expected, or there are too many.
            TaskError: a task does not exist, or was left out at loading.
            RunError: the backend failed.
        """
        tensor, _ = prepare(images, self.signature.preprocessing)
        count = len(tensor)
        if count < self._batch_min or (self._batch_max is not None and count > self._batch_max):
            raise ImageError(f"got a batch of {count}; this artifact takes {self.batch_range}")
        names = list(self._outputs) if tasks is None else self._chosen(tasks)
        if out:
            self._check_buffers(out, names, count)
        return self.backend.run({INPUT_NAME: tensor}, names, out)

    def predict(self, images: Images, tasks: Sequence[str] | None = None) -> Any:
        """Run on any number of images and decode.

        Args:
            images: see :func:`~mtl_deploy.runtime.images.prepare`. More than one batch can hold are run in several.
            tasks: which to compute; None: all of :attr:`tasks`.

        Returns:
            For one image a dict, by task a :class:`~mtl_deploy.runtime.decoding.Prediction`; for a list or a batch a list of
            such dicts. (Which of them depends on an array's dimensions, so it cannot be told by the types.)

        Raises:
            ImageError: an image cannot be read or has another shape or dtype than expected.
            TaskError: a task does not exist, or was left out at loading.
            RunError: the backend failed.
        """
        tensor, single = prepare(images, self.signature.preprocessing)
        names = list(self._outputs) if tasks is None else self._chosen(tasks)
        predictions: list[dict[str, Prediction]] = []
        for piece in self._pieces(tensor):
            predictions += self._decode(self.backend.run({INPUT_NAME: piece}, names))
        del predictions[len(tensor) :]  # the padding of the last batch
        return predictions[0] if single else predictions

    @property
    def batch_range(self) -> str:
        """For people: the batches that the artifact takes."""
        if self._batch_max is None:
            return f"{self._batch_min} or more"
        if self._batch_min == self._batch_max:
            return f"exactly {self._batch_min}"
        return f"{self._batch_min} to {self._batch_max}"

    def close(self) -> None:
        """Free the backend. A closed model cannot run; closing twice is allowed."""
        self.backend.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        what = "lone graph" if self.artifact is None else self.artifact.path
        return f"<Model {what}: {', '.join(self._outputs)}; {self.backend.details}>"

    def _pieces(self, tensor: Array) -> Iterator[Array]:
        size = self._batch_max or len(tensor)
        for start in range(0, len(tensor), size):
            piece = tensor[start : start + size]
            if (missing := self._batch_min - len(piece)) > 0:
                piece = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
            yield piece

    def _decode(self, outputs: Mapping[str, Array]) -> list[dict[str, Prediction]]:
        form = self.signature.outputs
        columns = [
            decode(self._outputs[name], output.astype(np.float32, copy=False), form) for name, output in outputs.items()
        ]
        return [{prediction.task: prediction for prediction in row} for row in zip(*columns, strict=True)]

    def _chosen(self, tasks: Iterable[str]) -> list[str]:
        wanted = _names(tasks)
        for name in wanted:
            if name not in self._outputs:
                raise TaskError(f"no task is called {name!r}; this model computes {', '.join(self._outputs)}")
        return wanted

    def _check_buffers(self, out: Mapping[str, Array], names: Sequence[str], count: int) -> None:
        for name, buffer in out.items():
            if name not in names:
                raise TaskError(
                    f"out has a buffer for {name!r}, which is not computed; computed are {', '.join(names)}"
                )
            shape = (count, self._outputs[name].size)
            if buffer.shape != shape or buffer.dtype != np.float32:
                raise ImageError(f"out[{name!r}] is {buffer.dtype} {buffer.shape}; expected float32 {shape}")
            if not (buffer.flags.c_contiguous and buffer.flags.writeable):
                raise ImageError(f"out[{name!r}] must be C-contiguous and writable")


def _names(tasks: Iterable[str]) -> list[str]:
    if isinstance(tasks, str):
        raise TaskError(f"tasks={tasks!r} is one string; pass a sequence of names, such as ({tasks!r},)")
    names = list(dict.fromkeys(tasks))
    if not names:
        raise TaskError("no task is asked for; name at least one, or leave tasks out for all")
    return names


def _find_graph(file: Path) -> tuple[Artifact | None, Callable[[], bytes]]:
    if not file.is_file():
        raise BundleError(f"{file}: no such file or bundle; make one with mtl-export")
    if file.suffix != ".onnx":
        raise BundleError(f"{file}: not a bundle (a folder with {MANIFEST}) and not an .onnx graph")
    if (found := find_bundle(file)) is not None:
        bundle, artifact = found
        return artifact, partial(bundle.read, artifact)
    return None, file.read_bytes


def _signature(backend: Backend, where: str) -> Signature:
    record = backend.metadata.get(METADATA_KEY)
    if record is None:
        raise BundleError(f"{where}: a graph without tasks in its metadata; export the network with mtl-export")
    signature = Signature.from_json(record, where)
    outputs = {spec.name for spec in backend.outputs}
    if [spec.name for spec in backend.inputs] != [INPUT_NAME] or not outputs <= {task.name for task in signature.tasks}:
        raise BundleError(f"{where}: the graph's inputs and outputs are not those of its metadata; export it again")
    return signature
