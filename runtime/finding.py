"""Finding the file that runs: in a bundle, by what was asked for, or where the caller names one; and how it is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl_deploy.runtime.backends.openvino.cache import FOLDER as CACHE_FOLDER
from mtl_deploy.runtime.bundle.manifest import (
    ENGINE_SUFFIXES,
    MANIFEST,
    Artifact,
    Bundle,
    Part,
    find_bundle,
    open_bundle,
)
from mtl_deploy.runtime.console.mistaken import no_bundle
from mtl_deploy.runtime.files.reading import describe, read_bytes
from mtl_deploy.runtime.onnx_format.check import check_graph

from .errors import BundleError, OptionError
from .selection import AS_MEASURED, Running, check_backend, graph_backend, graph_choice, select


@dataclass(frozen=True)
class Found:
    """A file to run.

    Attributes:
        bundle: the one that it was chosen from; None where the file itself was named.
        around: the bundle that it is in; None for a lone graph.
        artifact: its entry there.
        lone: a lone graph's path.
        misfit: why what is preferred was not chosen.
        runner: the name of the backend that runs it.
        why: the reason for that.
        notice: what is wrong with the bundle's measurements; None: nothing.
    """

    bundle: Bundle | None
    around: Bundle | None
    artifact: Artifact | None
    lone: Path
    misfit: str | None = None
    runner: str = "onnxruntime"
    why: str = ""
    notice: str | None = None

    def cache(self, chosen: str | os.PathLike[str] | bool | None) -> Path | None:
        """Return OpenVINO's folder of compiled graphs: the chosen one, or one in the bundle; None: nothing is kept."""
        if chosen is False or (chosen is None and self.around is None):
            return None
        if chosen is None or chosen is True:
            return (self.lone.parent if self.around is None else self.around.path) / CACHE_FOLDER
        return Path(os.fspath(chosen))

    @property
    def where(self) -> str:
        """How errors call it."""
        if self.around is None or self.artifact is None:
            return str(self.lone)
        return str(self.around.path / self.artifact.path)

    def read(self) -> bytes:
        """Return its bytes, checked against the manifest's SHA-256 where there is one; a graph must hold all its weights."""
        if self.around is None or self.artifact is None:
            try:
                content = read_bytes(self.lone, None)
            except OSError as error:
                raise BundleError(f"{self.lone}: {describe(error)}") from error
            check_graph(content, str(self.lone))
            return content
        return self.around.read(self.artifact)


def find(
    file: Path,
    precision: str | None,
    backend: str | None,
    providers: Sequence[str] | None,
    device: int | None,
    running: Running = AS_MEASURED,
) -> Found:
    """Find the file to run; the arguments are those of :func:`~mtl_deploy.runtime.loading.load`, and how a graph will be run.

    Raises:
        BundleError: there is no bundle or graph of this package.
        BackendError: nothing installed here can run it as requested.
        OptionError: the options contradict the file.
    """
    if file.is_dir() or file.name == MANIFEST:
        bundle = open_bundle(file)
        choice = select(
            bundle, precision=precision, backend=backend, providers=providers, device=device, running=running
        )
        return Found(bundle, bundle, choice.artifact, file, choice.misfit, choice.backend, choice.why, choice.notice)
    check_backend(backend)
    if not file.is_file():
        raise BundleError(no_bundle(file))
    if precision is not None:
        raise OptionError(
            f"{file} is one file, and precision={precision!r} chooses among those of a bundle; leave it out"
        )
    if (found := find_bundle(file)) is not None:
        around, artifact = found
        if isinstance(artifact, Part):
            raise OptionError(f"{file} is a part of a network; load the bundle {around.path} with split=True")
        graph = artifact.backend == "onnxruntime"
        if backend not in (None, artifact.backend, *(["openvino"] if graph else [])):
            raise OptionError(f"{file} runs on {artifact.backend}, not on backend={backend!r}; leave that out")
        if not graph:
            return Found(None, around, artifact, file, None, "tensorrt", "it is an engine")
        choice = graph_choice(around, artifact, backend, providers, running)
        return Found(None, around, artifact, file, None, choice.backend, choice.why, choice.notice)
    if file.suffix in ENGINE_SUFFIXES:
        raise BundleError(
            f"{file}: an engine runs only from its bundle, whose manifest says what it computes and holds its SHA-256 (an engine "
            "can run code); pass its path there"
        )
    if file.suffix != ".onnx":
        raise BundleError(no_bundle(file, "a bundle or an .onnx graph"))
    return Found(None, None, None, file, None, *graph_backend(None, backend, providers))
