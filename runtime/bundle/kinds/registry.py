"""What kinds of tasks there are: one line each.

A kind is one small folder of the same name in each of ``runtime/kinds/``, ``calibration/kinds/`` and ``export/kinds/``, with a
registry in each room. This is the first one's; it stands below the kinds, since tasks are checked through it.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib import import_module
from typing import Any

from mtl_deploy.runtime.errors import TaskError

from .base import TaskKind

KINDS: dict[str, str] = {
    "regression": "mtl_deploy.runtime.kinds.regression.kind",
    "binary": "mtl_deploy.runtime.kinds.binary.kind",
    "multiclass": "mtl_deploy.runtime.kinds.multiclass.kind",
    "multilabel": "mtl_deploy.runtime.kinds.multilabel.kind",
    "distribution": "mtl_deploy.runtime.kinds.distribution.kind",
    "ordinal": "mtl_deploy.runtime.kinds.ordinal.kind",
    "segmentation": "mtl_deploy.runtime.kinds.segmentation.kind",
    "depth": "mtl_deploy.runtime.kinds.depth.kind",
    "normals": "mtl_deploy.runtime.kinds.normals.kind",
    "mask": "mtl_deploy.runtime.kinds.mask.kind",
    "keypoints": "mtl_deploy.runtime.kinds.keypoints.kind",
    "vector": "mtl_deploy.runtime.kinds.vector.kind",
    "rotation": "mtl_deploy.runtime.kinds.rotation.kind",
    "embedding": "mtl_deploy.runtime.kinds.embedding.kind",
    "raw": "mtl_deploy.runtime.kinds.raw.kind",
    "detection": "mtl_deploy.runtime.kinds.detection.kind",
}
"""By name of a kind, the module that holds it as ``KIND``. It is imported when it is first asked for."""


@lru_cache(maxsize=64)
def held(path: str) -> Any:
    """Return the kind that a module holds as ``KIND``, for the registries of all rooms. The module is imported the first time."""
    return import_module(path).KIND


def task_kind(name: str) -> TaskKind:
    """Return a kind, which is imported the first time.

    Raises:
        TaskError: there is none of this name.
    """
    if name not in KINDS:
        raise TaskError(f"unknown kind {name!r}; known kinds: {', '.join(KINDS)}")
    found: TaskKind = held(KINDS[name])
    return found


def examples() -> str:
    """Return an example of each kind as ``--task`` takes it from a shell, with "or" before the last."""
    *first, last = (shlex.quote(task_kind(name).example) for name in KINDS)
    return f"{', '.join(first)} or {last}"


def those_with(field: str) -> str:
    """Return how messages call the kinds that take a field of :data:`SHARED`, such as ``a regression, depth or a vector``."""
    called = [kind.called for kind in map(task_kind, KINDS) if field in kind.takes]
    return " or ".join([", ".join(called[:-1]), called[-1]] if len(called) > 1 else called)
