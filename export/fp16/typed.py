"""The FP16 graph of an FP32 graph, as it is before anything is known about its accuracy: made while the FP32 graph is verified."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

from mtl_deploy.export.graph.variants import GraphVariant
from mtl_deploy.export.network.inputs import Images
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.stage import Samples
from mtl_deploy.export.verification.verify import graph_input
from mtl_deploy.runtime.backends.modes import usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx

    from mtl_deploy.calibration.fp16.typing import HalfResult
    from mtl_deploy.calibration.observe.statistics import TensorStatistics


class Typed:
    """An FP32 graph with the ranges of its tensors, and the FP16 graph that follows from them.

    Args:
        shared: the FP32 graph.
        samples: images; of the first size, all are run.
        threads: of ONNX Runtime; None: one per core.
    """

    def __init__(self, shared: GraphVariant, samples: Samples, threads: int | None) -> None:
        import onnx_ir as ir

        self._shared, self._samples, self._threads = shared, samples, threads
        self.proto: onnx.ModelProto = ir.to_proto(shared.model)
        """The FP32 graph."""
        self._stopped = Event()
        self._made: Future[tuple[Mapping[str, TensorStatistics], HalfResult]] = Future()

    def make(self) -> None:
        """Run the graph on the images, and type it."""
        try:
            self._made.set_result(self._make())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            self._made.set_exception(error)

    @property
    def result(self) -> tuple[Mapping[str, TensorStatistics], HalfResult]:
        """The ranges, and the FP16 graph; waits until they are made, and raises what making them raised."""
        return self._made.result()

    def stop(self) -> None:
        """Let :meth:`make` end after the images that it is running now."""
        self._stopped.set()

    def inputs(self, images: Images) -> Iterator[npt.NDArray[Any]]:
        """Return images as the graph takes them, a few at a time."""
        from mtl_deploy.calibration.graph.sizes import images_at_once

        size = self._shared.batch or images_at_once(self.proto, self._shared.signature, 4)
        for start in range(0, len(images), size):
            if self._stopped.is_set():
                raise CancelledError
            yield graph_input(images[start : start + size], self._shared.signature.preprocessing)

    def _make(self) -> tuple[Mapping[str, TensorStatistics], HalfResult]:
        from mtl_deploy.calibration.fp16.typing import to_half
        from mtl_deploy.calibration.observe.statistics import observe

        images, _ = self._samples[0]
        statistics = observe(self.proto, self.inputs(images), threads=self._threads)
        return statistics, to_half(self.proto, statistics)


@contextmanager
def typed_meanwhile(shared: GraphVariant, samples: Samples, options: Options) -> Iterator[Typed | None]:
    """Yield the FP16 graph of an FP32 graph, which a thread makes while the block runs.

    Args:
        shared: the FP32 graph. Its weights are copied first: serializing it, which the block does, changes it for a moment.
        samples: images.
        options: precisions and threads.

    Yields:
        None if FP16 is not wanted, or if there is one thread for all.
    """
    threads = options.threads or usable_cores()
    if "fp16" not in options.precisions or threads == 1:
        yield None
        return
    typed = Typed(shared, samples, threads // 2)  # the block runs another graph
    with ThreadPoolExecutor(1, "mtl-fp16") as pool:
        pool.submit(typed.make)
        try:
            yield typed
        finally:
            typed.stop()
