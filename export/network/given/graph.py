"""A given graph as a network: what it computes is the truth for the graphs that are made from it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from mtl_deploy.export.graph.causes import first_line
from mtl_deploy.runtime.backends.onnxruntime.backend import available_providers
from mtl_deploy.runtime.errors import CheckpointError, RunError, TraceError
from mtl_deploy.runtime.files.reading import shown

from .entry import Entry
from .float64 import Float64

Array = npt.NDArray[Any]

SECONDS = 60.0  # that one image may take in float64
_LONG, _FEW = 4.0, 2  # seconds for one image, and how many run in float64 where it is more
LONGEST = 120.0  # seconds that an image may take in the first runs
_MOST = 1 << 28  # values in a batch: 1 GiB
_PROBES = (2, 3)  # two numbers of images tell a batch from a constant


class EndlessError(RunError):
    """A run was stopped, since it took too long."""


class GivenGraph(nn.Module):
    """Runs a graph as it was given, in ONNX Runtime on the CPU with every optimization off.

    Float images run in float32, double ones in float64 (:mod:`.float64`), one at a time. It takes any number of images, also where
    the graph takes but one batch: they then go through it batch by batch.

    Args:
        model: prepared.
        entry: its image.
        size: height and width in pixels that it is tried at.
        threads: inside an operator; None: one per core.
        where: how errors call the file.

    Raises:
        CheckpointError: ONNX Runtime does not know an operator in it.
        TraceError: it fails on images.
    """

    def __init__(
        self, model: onnx.ModelProto, entry: Entry, size: tuple[int, int], threads: int | None, where: str
    ) -> None:
        super().__init__()
        self.model, self.entry, self.where = model, entry, where
        self.batch = entry.sizes[0]
        self.outputs: tuple[str, ...] = ()
        self.left: dict[str, str] = {}
        self.seconds: float | None = None
        self._session = session(model.SerializeToString(), threads, where)
        self._double: Float64 | None = None
        self._find_outputs(size)

    @property
    def affordable(self) -> int | None:
        """How many images may run in float64, after one has: fewer if that took long; None: as many as usual."""
        return _FEW if self.seconds is not None and self.seconds > _LONG else None

    def __deepcopy__(self, memo: dict[int, Any]) -> GivenGraph:
        """Return a copy that shares the session: nothing in it changes."""
        return copy.copy(self)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the float outputs by name.

        Args:
            images: ``(N, C, H, W)``, float32 or float64; for a graph that takes pixels, with values from 0 to 255.

        Raises:
            RunError: ONNX Runtime fails.
        """
        double = images.dtype == torch.float64
        step = self.batch or (1 if double else len(images))
        whole = -(-len(images) // step) * step
        array = images.detach().numpy()
        array = np.concatenate([array, *[array[-1:]] * (whole - len(array))])
        run = self._run_double if double else self._run
        parts = [run(self.arranged(array[start : start + step])) for start in range(0, whole, step)]
        return {
            name: torch.from_numpy(np.concatenate([part[name] for part in parts])[: len(images)])
            for name in self.outputs
        }

    def arranged(self, images: Array) -> Array:
        """Return float ``(N, C, H, W)`` images as the graph takes them."""
        found = images.transpose(0, 2, 3, 1) if self.entry.last else images
        if self.entry.pixels:
            found = np.clip(np.rint(found), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(found)

    def _run(self, images: Array) -> dict[str, Array]:
        return dict(zip(self.outputs, run(self._session, self.entry.name, images, self.outputs), strict=True))

    def _run_double(self, images: Array) -> dict[str, Array]:
        if self._double is None:
            self._double = Float64(self.model, self.outputs)
        start = time.monotonic()
        found = self._double.run(self.entry.name, images, SECONDS)
        self.seconds = time.monotonic() - start
        return dict(zip(self.outputs, found, strict=True))

    def _find_outputs(self, size: tuple[int, int]) -> None:
        """Run the graph once or twice, to find its batch, and which outputs have one row or map per image."""
        height, width = self.entry.sizes[2] or size[0], self.entry.sizes[3] or size[1]
        channels = self.entry.sizes[1] or 3
        names = [value.name for value in self.model.graph.output]
        if (self.batch or _PROBES[-1]) * channels * height * width > _MOST:
            raise CheckpointError(
                f"{self.where}: images {self.entry.description}, {height}x{width}, are more than fit into memory"
            )
        found: list[tuple[int, Mapping[str, Any]]] = []
        for count in (self.batch,) if self.batch else _PROBES:
            images = self.arranged(np.full((count, channels, height, width), 0.5, np.float32))
            try:
                values = run(self._session, self.entry.name, images, names, LONGEST * count)
                found.append((count, dict(zip(names, values, strict=True))))
            except RunError as error:
                if self.batch or found or isinstance(error, EndlessError):
                    raise TraceError(
                        f"{self.where}: the graph fails on {count} images of {height}x{width}: {error}"
                    ) from error
                self.batch = 1
                self._find_outputs(size)
                return
        for name in names:
            reason = next((text for count, values in found if (text := _unsuitable(values[name], count))), "")
            if reason:
                self.left[name] = reason
        self.outputs = tuple(name for name in names if name not in self.left)
        if not self.outputs:
            listed = ", ".join(f"{shown(name)}: {reason}" for name, reason in self.left.items())
            raise CheckpointError(f"{self.where}: no output has one row or map of floats per image ({listed})")


def session(content: bytes, threads: int | None, where: str) -> Any:
    """Return an ONNX Runtime session on the CPU that runs a graph node by node, as it is written.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    available_providers()  # raises if ONNX Runtime is missing or broken
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        raise CheckpointError(
            f"{where}: ONNX Runtime {ort.__version__} cannot load this graph ({first_line(error, 300)}); export it again, with "
            "ONNX's own operators alone"
        ) from error


def run(session: Any, name: str, images: Array, outputs: Any, seconds: float | None = None) -> list[Any]:
    """Run a session on one input.

    Args:
        session: of :func:`session`.
        name: of its input.
        images: as it takes them.
        outputs: names of those wanted.
        seconds: that it may take, checked between nodes and between the rounds of a loop; None: any number.

    Raises:
        EndlessError: it takes longer.
        RunError: it fails.
    """
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(seconds or 0, setattr, (options, "terminate", True))
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        found: list[Any] = session.run(list(outputs), {name: images}, options)
    except Exception as error:  # its exceptions have no common base class
        if options.terminate:
            raise EndlessError(
                f"it was stopped after {seconds:g} seconds; a loop in it may have no end, so export the network again without it"
            ) from error
        raise RunError(first_line(error, 300)) from error
    finally:
        timer.cancel()
    return found


def _unsuitable(value: object, batch: int) -> str:
    """Return why an output cannot be a task's; empty if it can."""
    if not isinstance(value, np.ndarray):
        return "no tensor"
    if value.dtype != np.float32:
        return f"{value.dtype}"
    if value.ndim < 1 or 0 in value.shape or value.shape[0] != batch:
        return f"shape {value.shape} for {batch} images"
    return ""
