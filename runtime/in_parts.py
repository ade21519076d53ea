"""The parts of a bundle's network, and what runs them: the backbone once, and the heads that a call asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Part
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, METADATA_KEY

from .errors import BackendError, BundleError, OptionError

if TYPE_CHECKING:
    from mtl_deploy.runtime.backends.base import Backend
    from mtl_deploy.runtime.backends.tensorrt.split.backend import TensorRTParts

_LOGGER = logging.getLogger("mtl_deploy.loading")


def parts_of(bundle: Bundle | None, artifact: Artifact | None, split: bool | None) -> tuple[Part, ...]:
    """Return the parts to run in place of a shared artifact, or beside it; none where it runs by itself.

    Args:
        bundle: that the artifact is in; None for a lone graph.
        artifact: that was chosen.
        split: whether parts were asked for; None: those of an engine are used where there are any.

    Raises:
        OptionError: parts were asked for, and there are none.
        BundleError: the parts do not give all tasks.
    """
    if split is False or (split is None and (artifact is None or artifact.backend != "tensorrt")):
        return ()
    found: tuple[Part, ...] = ()
    if bundle is not None and artifact is not None and artifact.role == "shared":
        found = tuple(part for part in bundle.manifest.parts if _belongs(part, artifact))
    if not found and split:
        what = "a lone graph" if artifact is None else artifact.path
        raise OptionError(
            f"{what} has no parts to run it in; export the network with mtl-export --split, or leave split out"
        )
    if found and artifact is not None:
        _require_whole(found, artifact)
    return found


def _belongs(part: Part, artifact: Artifact) -> bool:
    words = ("precision", "backend", "batch_min", "batch_max")
    of_engines = ("library", "version", "compute_capabilities")
    return all(getattr(part, word) == getattr(artifact, word) for word in words) and all(
        part.details.get(word) == artifact.details.get(word) for word in of_engines
    )


def _require_whole(parts: Sequence[Part], artifact: Artifact) -> None:
    """Check that parts before it give what each part reads, whichever tasks are asked for, and that all tasks come out."""
    givers = {INPUT_NAME: set(artifact.tasks)}  # the tasks for which a tensor is there
    for part in parts:
        for border in part.inputs:
            if not givers.get(border.name, set()) >= set(part.tasks):
                raise BundleError(f"{part.path}: it reads {border.name!r}, which no part before it gives; export again")
        for border in part.outputs:
            if border.name in givers:
                raise BundleError(f"{part.path}: {border.name!r} is there already; export again")
            givers[border.name] = set(part.tasks)
    if missing := [task for task in artifact.tasks if task not in givers.get(task, set())]:
        raise BundleError(f"{parts[0].path}: no part gives task {missing[0]!r}; export again")


def graph_parts(bundle: Bundle, parts: Sequence[Part], tasks: Sequence[str] | None, **options: Any) -> Backend:
    """Return what runs parts on ONNX Runtime.

    Args:
        bundle: that they are in.
        parts: each after those whose outputs it reads.
        tasks: the only ones that will be needed; None: all.
        options: of :class:`~mtl_deploy.runtime.backends.onnxruntime.parts.OnnxRuntimeParts`.
    """
    from mtl_deploy.runtime.backends.onnxruntime.parts import OnnxRuntimeParts, PartGraph

    graphs = [
        PartGraph(
            lambda part=part: bundle.read(part),  # type: ignore[misc]
            str(bundle.path / part.path),
            part.tasks,
            tuple(border.name for border in part.inputs),
            tuple(border.name for border in part.outputs),
        )
        for part in parts
    ]
    made = OnnxRuntimeParts(graphs, tasks=tasks, **options)
    made.metadata = {METADATA_KEY: bundle.manifest.signature.to_json()}
    return made


def engine_parts(bundle: Bundle, parts: Sequence[Part], tasks: Sequence[str] | None, **options: Any) -> TensorRTParts:
    """Return what runs parts on TensorRT; see :func:`graph_parts`."""
    from mtl_deploy.runtime.backends.tensorrt.split.backend import PartEngine, TensorRTParts

    engines = []
    for part in parts:
        where = str(bundle.path / part.path)
        engines.append(
            PartEngine(
                lambda part=part: bundle.read(part),  # type: ignore[misc]
                EngineRecord.from_details(part.details, where),
                where,
                part.tasks,
                tuple(border.name for border in part.inputs),
                tuple(border.name for border in part.outputs),
            )
        )
    return TensorRTParts(engines, tasks=tasks, **options)


def engine_with_parts(
    bundle: Bundle,
    artifact: Artifact,
    parts: Sequence[Part],
    tasks: Sequence[str] | None,
    *,
    only: bool,
    **options: Any,
) -> Backend:
    """Return what runs an engine for all tasks, and its parts for some.

    Args:
        bundle: that they are in.
        artifact: the engine.
        parts: of the same network.
        tasks: the only ones that will be needed; None: all.
        only: run the parts for all tasks too, and do not load the engine. Where ``tasks`` are some only, it is not loaded either.
        options: of :class:`~mtl_deploy.runtime.backends.tensorrt.backend.TensorRTBackend`.
    """
    from mtl_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
    from mtl_deploy.runtime.backends.tensorrt.split.backend import TensorRTWithParts

    if only:
        return engine_parts(bundle, parts, tasks, **options)
    where = str(bundle.path / artifact.path)
    record = EngineRecord.from_details(artifact.details, where)
    if tasks is not None and set(tasks) < set(artifact.tasks):
        try:
            return engine_parts(bundle, parts, tasks, **options)
        except BackendError as error:
            _LOGGER.warning("%s; the whole engine computes all tasks of every call", error)
            return TensorRTBackend(lambda: bundle.read(artifact), record, where=where, **options)
    return TensorRTWithParts(
        lambda: bundle.read(artifact),
        record,
        lambda: engine_parts(bundle, parts, None, **options),
        where=where,
        **options,
    )
