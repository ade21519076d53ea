"""A network's INT8 graphs: ranges are found once, and graphs in two styles are built from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mtl_deploy.calibration.accuracy.evaluate import Corrected, corrected_errors
from mtl_deploy.calibration.accuracy.run import BATCH, Outputs, run_graph
from mtl_deploy.calibration.data.images import batches
from mtl_deploy.calibration.data.stored import Images
from mtl_deploy.calibration.data.strata import spread
from mtl_deploy.calibration.fp16.emulate_int8 import emulate_int8
from mtl_deploy.calibration.graph.sizes import LARGEST, image_bytes, images_at_once, portions
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.observe.growing import GrowingHistograms
from mtl_deploy.calibration.observe.histograms import Histogram, collect
from mtl_deploy.calibration.observe.ranges import METHODS, Range, choose
from mtl_deploy.calibration.observe.statistics import TensorStatistics, observe
from mtl_deploy.calibration.observe.trained import Trained, as_range, place_ranges, replaced
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.errors import WorkError

from .bias_correction import correct_bias
from .coverage import coverage
from .fp16_around import to_half_around
from .qdq_placement import QdqPlacement, place
from .quantize import Quantized, quantize

STYLES = ("tensorrt", "cpu")
_BATCH = 4
_FP32_OPSET = 17  # its QuantizeLinear does not accept FP16
_COLLECTED = 2 * LARGEST  # bytes of the values that are counted at once
_JUDGED = 64  # images for comparing methods and for correcting the mean
_WORST = 5  # ranges to list per style


@dataclass(frozen=True)
class Int8Graph:
    """A quantized graph.

    Attributes:
        content: the ``.onnx`` file.
        runnable: an ``.onnx`` file that gives its numbers on a CPU, see :mod:`mtl_deploy.calibration.fp16.emulate_int8`.
        details: for the manifest.
    """

    content: bytes
    runnable: bytes
    details: dict[str, Any]


class Int8Graphs:
    """Makes INT8 graphs of one FP32 graph.

    Args:
        content: the FP32 graph's ``.onnx`` file.
        images: ``(N, H, W, C) uint8``, for calibration.
        signature: the graph's.
        batch: the only batch size that it accepts; None: any.
        options: for making INT8 graphs.
        regressions: names of the outputs whose mean is corrected, see :mod:`mtl_deploy.calibration.int8.bias_correction`.

    Attributes:
        judged: 64 of the images, spread evenly over their order, for comparing graphs.
    """

    def __init__(
        self,
        content: bytes,
        images: Images,
        signature: Signature,
        batch: int | None,
        options: Int8Options,
        regressions: Sequence[str] = (),
    ) -> None:
        self.content = content
        self.regressions = tuple(regressions)
        self._expected: Outputs | None = None
        self._placements: dict[str, QdqPlacement] = {}
        self._known_shifts: dict[tuple[str, str], dict[str, npt.NDArray[np.float64]]] = {}
        self.model = onnx.load_from_string(content)
        whole = len(images) if batch is None else len(images) // batch * batch
        self.images = images[spread(len(images), whole, options.seed)]
        self.signature, self.batch, self.options = signature, batch, options
        self.preprocessing = signature.preprocessing
        self.judged = self.images[spread(len(self.images), _JUDGED, options.seed)]
        self.ranges: dict[str, dict[str, dict[str, Range]]] = {}
        self.observed: dict[str, TensorStatistics] = {}
        self._histograms: dict[str, Histogram] | None = None

    def find_ranges(self, progress: Callable[[str], None] = lambda _: None) -> dict[str, dict[str, dict[str, Range]]]:
        """Run the graph on the images; return ranges by style, method and tensor, each for the integers of its style."""
        histograms = self.histograms(progress)
        return {
            style: {
                method: {name: choose(one, method, symmetric=style == "tensorrt") for name, one in histograms.items()}
                for method in self.methods
            }
            for style in STYLES
        }

    def keep(self, trained: Trained) -> tuple[int, int]:
        """Replace ranges by those of training where its fake quantizers saw the same tensors.

        Returns:
            The number of tensors whose ranges were replaced, and of all tensors with a range.
        """
        names = sorted({name for methods in self.ranges.values() for found in methods.values() for name in found})
        images = trained.images
        batch = next(iter(batches(images, self.preprocessing, self.batch or len(images), least=self.batch or 1)))
        placed = place_ranges(self.model, names, trained, batch, threads=self.options.threads)
        self.ranges = replaced(self.ranges, {name: as_range(one, self.observed[name]) for name, one in placed.items()})
        return len(placed), len(names)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to find ranges with."""
        return METHODS if self.options.method == "auto" else (self.options.method,)

    def histograms(self, progress: Callable[[str], None] = lambda _: None) -> dict[str, Histogram]:
        """Return the histograms of all tensors that either style quantizes; found only once.

        It takes one pass over the images, or, where the values of one image take more than 512 MiB, one to find the ranges first.
        """
        if self._histograms is None:
            placements = [self._placement(style) for style in STYLES]
            names = sorted({name for placement in placements for name in placement.tensors})
            if not names:
                raise WorkError(_nothing_to_quantize(placements[0].kept))
            threads = self.options.threads
            most = images_at_once(self.model, self.signature, _BATCH)
            sizes = image_bytes(self.model, self.signature)
            total = max(sum(sizes.get(name, 0) for name in names), 1)
            size = self.batch or max(min(most, _COLLECTED // total), 1)
            if size * total <= _COLLECTED:
                self._histograms = self._counted_while_observed(names, size, progress)
                return self._histograms
            pieces = self._batches("ranges", self.batch or most, progress)
            self.observed = observe(self.model, pieces, threads=threads)
            self._histograms = {}
            for part in portions(sizes, names, _COLLECTED // size):
                batches = self._batches("histograms", size, progress)
                self._histograms |= collect(self.model, part, batches, self.observed, threads=threads)
        return self._histograms

    def _counted_while_observed(
        self, names: Sequence[str], size: int, progress: Callable[[str], None]
    ) -> dict[str, Histogram]:
        growing, threads = GrowingHistograms(names), self.options.threads
        pieces = self._batches("ranges", size, progress)
        self.observed = observe(self.model, pieces, threads=threads, also=names, take=growing.add)
        return growing.histograms(self.observed)

    def _batches(self, what: str, size: int, progress: Callable[[str], None]) -> Any:
        for position, piece in enumerate(batches(self.images, self.preprocessing, size)):
            progress(f"{what}, {min((position + 1) * size, len(self.images))} of {len(self.images)} images")
            yield piece

    def choose_methods(self) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
        """Return by style the method to use and, if several were tried, the error of each on calibration images.

        Each graph is run once: by what its outputs are to be shifted, and its error then, come from the same answers.
        Each style takes the method that is best for its own graph as it will run: S8 with FP16's rounding around it, U8 with FP32.
        """
        if self.options.method != "auto":
            return dict.fromkeys(STYLES, self.options.method), {}
        keys = [(style, method) for style in STYLES for method in self.ranges[style]]
        dense = any(kind_of(task).by_rows for task in self.signature.tasks)
        found: dict[tuple[str, str], Corrected] = {}
        for part in [[key for key in keys if key[0] == style] for style in STYLES] if dense else [keys]:
            found |= self._judge(part)  # decoded maps of all graphs of a pass are held at once
        self._known_shifts = {key: dict(one.shifts) for key, one in found.items()}
        errors = {style: {method: found[style, method].error for method in self.ranges[style]} for style in STYLES}
        return {style: min(of, key=of.__getitem__) for style, of in errors.items()}, errors

    def _judge(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Corrected]:
        """Run the graphs of these styles and methods beside the FP32 graph, in one pass."""
        graphs: dict[str, bytes] = {}
        correct: dict[str, list[str]] = {}
        names = {f"{style}/{method}": (style, method) for style, method in keys}
        for name, key in names.items():
            quantized = self._quantized(*key, ()).model
            graphs[name] = self._finished(quantized, key[0])[1].SerializeToString()
            correct[name] = [each for each in self.regressions if correct_bias(quantized, each, self._nothing(each))]
        found = corrected_errors(
            self.content,
            graphs,
            self.judged,
            self.signature,
            correct,
            batch=self.batch,
            threads=self.options.threads,
        )
        return {key: found[name] for name, key in names.items()}

    def _nothing(self, name: str) -> npt.NDArray[np.float64]:
        """Return a shift of an output that changes nothing."""
        return np.zeros(next(task.size for task in self.signature.tasks if task.name == name))

    def build(self, style: str, method: str, skip: Collection[str] = ()) -> Int8Graph:
        """Make a graph.

        Args:
            style: ``tensorrt`` or ``cpu``.
            method: the method whose ranges are used.
            skip: names of nodes that stay in higher precision.
        """
        quantized = self._quantized(style, method, skip)
        shifts = None if skip else self._known_shifts.get((style, method))
        if shifts is None:
            shifts = self._shifts(self._finished(quantized.model, style)[1]) if self.regressions else {}
        shifts = {name: shift for name, shift in shifts.items() if correct_bias(quantized.model, name, shift)}
        model, runnable = self._finished(quantized.model, style)
        return Int8Graph(
            content=model.SerializeToString(deterministic=True),
            runnable=runnable.SerializeToString(deterministic=True),
            details={
                "style": style,
                "method": method,
                "corrected": {name: [float(value) for value in shift] for name, shift in shifts.items()},
                **quantized.to_dict(),
            },
        )

    def _finished(self, quantized: onnx.ModelProto, style: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        """Return the graph to write, and the graph that gives its numbers on a CPU."""
        model = runnable = quantized
        if style == "tensorrt":
            if self.options.opset != _FP32_OPSET:
                model = to_half_around(quantized, self.observed)
            runnable = emulate_int8(model)
        for each in (model, runnable):
            del each.metadata_props[:]
            each.metadata_props.extend(self.model.metadata_props)
        return model, runnable

    def _shifts(self, runnable: onnx.ModelProto) -> dict[str, npt.NDArray[np.float64]]:
        """Return by regression the mean difference of FP32's outputs from a graph's, over calibration images."""
        if self._expected is None:
            self._expected = self._run(self.content, self.judged, self.regressions)
        found = self._run(runnable.SerializeToString(), self.judged, self.regressions)
        return {
            name: np.mean(self._expected[name].astype(np.float64) - found[name], axis=0)
            for name in self.regressions
            if np.isfinite(found[name]).all()
        }

    def _quantized(self, style: str, method: str, skip: Collection[str]) -> Quantized:
        placement = self._placement(style, skip)
        bits = self.options.weight_bits if style == "cpu" else 8
        return quantize(self.model, self.ranges[style][method], placement, weight_bits=bits)

    def _placement(self, style: str, skip: Collection[str] = ()) -> QdqPlacement:
        if skip:
            return place(self.model, style, skip)
        if style not in self._placements:
            self._placements[style] = place(self.model, style)
        return self._placements[style]

    def _run(self, content: bytes, images: Images, outputs: Sequence[str]) -> Outputs:
        most = images_at_once(self.model, self.signature, BATCH)
        threads = self.options.threads
        return run_graph(
            content, images, self.preprocessing, batch=self.batch, most=most, threads=threads, outputs=outputs
        )

    def coverage(self, methods: Mapping[str, str], skip: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the tensors whose ranges fit worst, five per style, each with its ``style``.

        Empty if the ranges were cached, as there are no histograms then.
        """
        if self._histograms is None:
            return []
        found: list[dict[str, Any]] = []
        for style in STYLES:
            ranges, placement = self.ranges[style][methods[style]], self._placement(style, skip)
            rows = coverage(self.model, self._histograms, ranges, placement)
            found += [{"style": style, **row.to_dict()} for row in rows[:_WORST]]
        return found


def _nothing_to_quantize(kept: Mapping[str, str]) -> str:
    """Say why a graph cannot be INT8, given the layers that stay in higher precision with their reasons."""
    if not kept:
        return "no layer of the graph can be INT8: it has no convolution and no matrix product with a constant"
    name, reason = next(iter(kept.items()))
    return f"no layer of the graph can be INT8: its {len(kept)} weighted layers stay in higher precision ({name!r}: {reason})"
