"""One graph, or the part of it for some outputs: compiled for each shape of images that comes, within bounds."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mtl_deploy.runtime.arrays import Array, TensorSpec
from mtl_deploy.runtime.backends.failures import is_memory, last_line
from mtl_deploy.runtime.errors import BackendError, DeviceMemoryError, MtlError, RunError
from mtl_deploy.runtime.signals import handlers_error

from .argmax import FORM, rewrite
from .cache import CompiledCache
from .compiled import CLOSED, CompiledGraph, Shape
from .library import OpenVino

MOST_SHAPES = 4
"""Shapes that are compiled by themselves, which is fastest; all others run on one graph that takes any."""
_MOST_KNOWN = 64  # shapes whose outputs' shapes are remembered


class Graph:
    """A graph for one set of outputs.

    Args:
        library: OpenVINO.
        content: returns the ``.onnx`` file's bytes; called when something is compiled.
        where: how errors call it.
        image: its input.
        outputs: its outputs, in the file's order.
        settings: properties that it is compiled with.
        cache: of compiled graphs.
        requests: infer requests of a compiled graph; None: OpenVINO's own number.
    """

    def __init__(
        self,
        library: OpenVino,
        content: Callable[[], bytes],
        where: str,
        image: TensorSpec,
        outputs: Sequence[TensorSpec],
        settings: Mapping[str, Any],
        cache: CompiledCache,
        requests: int | None,
    ) -> None:
        self._library, self._content, self._where = library, content, where
        self._image, self._outputs = image, tuple(outputs)
        self._settings, self._cache, self._requests = dict(settings), cache, requests
        self._lock = threading.Lock()
        self._model: Any = None
        self._shaped: dict[Shape, CompiledGraph] = {}
        self._any: CompiledGraph | None = None
        self._known: OrderedDict[Shape, tuple[Shape, ...]] = OrderedDict()
        self._closed = False

    def warm(self) -> CompiledGraph:
        """Compile for one image, or for any sizes where the graph leaves them free; return the compiled graph.

        Raises:
            BackendError: OpenVINO cannot read or compile it.
            DeviceMemoryError: there is not enough memory.
        """
        batch, *sides = self._image.shape
        if None in sides:
            with self._lock:
                return self._for_any()
        return self._for((batch or 1, *(size or 1 for size in sides)))

    def run(self, image: Array, into: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on images of any shape that the graph takes; see :meth:`CompiledGraph.run`."""
        return self._for(image.shape).run(image, into)

    def close(self) -> None:
        """Free what is compiled, once running calls have ended."""
        with self._lock:
            self._closed = True
            compiled = [*self._shaped.values(), *([self._any] if self._any is not None else [])]
            self._shaped, self._any, self._model = {}, None, None
        for one in compiled:
            one.close()

    def _for(self, shape: Shape) -> CompiledGraph:
        found = self._shaped.get(shape)
        if found is not None:
            return found
        with self._lock:
            if self._closed:
                raise RunError(CLOSED)
            if shape not in self._shaped:
                if len(self._shaped) >= MOST_SHAPES:
                    return self._for_any()
                self._shaped[shape] = self._compiled(shape)
            return self._shaped[shape]

    def _for_any(self) -> CompiledGraph:
        if self._any is None:
            self._any = self._compiled(None)
        return self._any

    def _compiled(self, shape: Shape | None) -> CompiledGraph:
        """Compile for a shape, or for any, or take what was compiled earlier from the cache."""
        core = self._library.core
        content: bytes | None = None
        try:
            key, compiled = "", None
            if self._cache.used:
                content = self._content()
                key = self._cache.key(content, shape=shape, settings=self._settings, form=FORM)
                if (kept := self._cache.read(key)) is not None:
                    compiled = self._imported(kept)
            if compiled is None:
                model = self._read(content)
                if shape is not None:
                    model = model.clone()
                    model.reshape(list(shape))
                compiled = core.compile_model(model, "CPU", self._settings)
                if self._cache.used:
                    self._keep(key, compiled)
            shapes = self._shapes_of if shape is None else _fixed(compiled)
            return CompiledGraph(self._library.module, compiled, self._outputs, shapes, self._requests)
        except MtlError:
            raise
        except Exception as error:  # its exceptions have no base class of their own
            raise self._failure(error, "compile it" + ("" if shape is None else f" for images {shape}")) from error

    def _imported(self, kept: bytes) -> Any:
        """Return a compiled graph from the cache; None where OpenVINO refuses it, such as one of another of its releases."""
        try:
            compiled = self._library.core.import_model(io.BytesIO(kept), "CPU", self._settings)
            names = [set(output.get_names()) for output in compiled.outputs]
        except Exception as error:
            if handlers_error(error) is not None or is_memory(error):
                raise
            return None
        fits = len(names) == len(self._outputs) and all(
            spec.name in found for spec, found in zip(self._outputs, names, strict=True)
        )
        return compiled if fits else None

    def _keep(self, key: str, compiled: Any) -> None:
        written = compiled.export_model()
        self._cache.keep(key, written if isinstance(written, bytes) else written.getvalue())

    def _read(self, content: bytes | None = None) -> Any:
        """Return the graph as OpenVINO's model; it is kept, as compiled graphs share its weights."""
        if self._model is None:
            library = self._library
            read = library.frontend.load(io.BytesIO(self._content() if content is None else content))
            model = library.frontend.convert(read)
            names = [set(output.get_names()) for output in model.outputs]
            if len(names) != len(self._outputs) or len(model.inputs) != 1:
                raise RuntimeError(f"it finds {len(model.inputs)} inputs and {len(names)} outputs in it")
            exact = self._settings.get("INFERENCE_PRECISION_HINT") == "f32"  # BF16 does not hold all class numbers
            if exact and rewrite(library.module, model):
                model.validate_nodes_and_infer_types()
            self._model = model
        return self._model

    def _shapes_of(self, image: Shape) -> tuple[Shape, ...]:
        """Return the outputs' shapes for images of a shape, which OpenVINO infers from the graph."""
        found = self._known.get(image)
        if found is None:
            with self._lock:
                try:
                    model = self._read().clone()
                    model.reshape(list(image))
                    found = _fixed(model)(image)
                except MtlError:
                    raise
                except Exception as error:
                    raise self._failure(error, f"run it on images {image}") from error
                self._known[image] = found
                while len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        return found

    def _failure(self, error: Exception, what: str) -> MtlError:
        """Return the error of ours that says what OpenVINO cannot do; raise what a signal handler of the application raised."""
        if (raised := handlers_error(error)) is not None:
            raise raised from raised.__cause__
        if is_memory(error):
            return DeviceMemoryError(
                f"{self._where}: out of memory ({last_line(error)}); the file is not to blame: free some memory and load it again"
            )
        return BackendError(
            f"{self._where}: OpenVINO {self._library.version} cannot {what} ({last_line(error)}); run it on ONNX Runtime "
            "(backend='onnxruntime')"
        )


def _fixed(model: Any) -> Callable[[Shape], tuple[Shape, ...]]:
    """Return a function that gives the shapes that a model without free sizes has."""
    return partial(_same, tuple(tuple(int(size) for size in output.shape) for output in model.outputs))


def _same(shapes: tuple[Shape, ...], image: Shape) -> tuple[Shape, ...]:  # noqa: ARG001 - only one shape comes
    return shapes
