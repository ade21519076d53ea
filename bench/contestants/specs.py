"""Specs: one contestant and how it is started, as a value that can be sent to another process; and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtl_deploy.bench.machine.environment import usable_cores
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.errors import OptionError

from .contestant import Contestant
from .pair import Pair, Settings, of_precision

STARTER = "mtl_deploy.bench.contestants.forms:start"
SHARED, SEPARATE, CONCURRENT, ONE_GRAPH, SUBSET = "shared", "separate", "concurrent", "one_graph", "subset"
MOST_SUBSETS = 4
"""A network with more tasks has no contestant per task unless they are named: each one takes its share of the time."""


@dataclass(frozen=True)
class Spec:
    """One contestant, as a value that can be sent to the process where it lives.

    Attributes:
        name: its key everywhere: ``shared``, ``separate``, ``shared:age``, ``separate@fp32``.
        title: its name for people: ``3 separate in sequence``.
        kind: ``shared``, ``separate``, ``concurrent``, ``one_graph``, ``subset``, ``pytorch``, ``openvino`` or ``provider``.
        path: the bundle's folder.
        artifacts: the files that it runs.
        tasks: the tasks that it computes.
        precision: its artifacts' precision.
        settings: how it runs.
        starter: ``module:function``; the function takes the spec and returns the contestant. It is looked up where the contestant
            lives, so that rooms above this one can add contestants. Where the module has a function ``load_libraries``, that is
            called with the spec before memory is first read.
        options: what the starter needs besides.
    """

    name: str
    title: str
    kind: str
    path: Path
    artifacts: tuple[Artifact, ...]
    tasks: tuple[str, ...]
    precision: str
    settings: Settings
    starter: str = STARTER
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def engines(self) -> bool:
        """Whether it runs engines."""
        return bool(self.artifacts) and self.artifacts[0].backend == "tensorrt"

    def total(self, word: str) -> int | None:
        """Return the sum of a manifest's field over its files; None where it runs a part of a file, or no file."""
        if self.kind == SUBSET or not self.artifacts:
            return None
        return sum(int(getattr(artifact, word)) for artifact in self.artifacts)

    def resolve(self) -> tuple[Callable[[Spec], Contestant], Callable[[Spec], None] | None]:
        """Return the starter, and the function that loads its libraries, where its module has one.

        Raises:
            ImportError: there is no such module.
            AttributeError: the module has no such function.
        """
        module, _, function = self.starter.partition(":")
        found = importlib.import_module(module)
        return getattr(found, function), getattr(found, "load_libraries", None)


def default_specs(pair: Pair, settings: Settings) -> list[Spec]:
    """Return the contestants that every bundle has, the reference first: one shared pass, and the separate models in each form."""
    specs = [_side(pair, SHARED, settings), _side(pair, SEPARATE, settings), _concurrent(pair, settings)]
    if pair.engines:
        return [*specs, *([_one_graph(pair, settings)] if settings.cuda_graphs else [])]
    names = [task.name for task in pair.bundle.manifest.tasks]
    return specs + (_subsets(pair, settings) if 1 < len(names) <= MOST_SUBSETS else [])


def chosen_specs(
    pair: Pair,
    settings: Settings,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    add: Sequence[str] = (),
    extra: Sequence[Spec] = (),
) -> list[Spec]:
    """Return the contestants to measure, the shared artifact first: it is what the others are compared with.

    Args:
        pair: what is compared.
        settings: how they run.
        only: measure no others than these, by name.
        without: leave these out, by name.
        add: measure these as well, as ``NAME@PRECISION``: ``separate@fp32``.
        extra: contestants that other modules add.

    Raises:
        OptionError: a name is not that of a contestant.
        BundleError: the bundle has no artifacts of a precision that is named.
    """
    specs = {spec.name: spec for spec in (*default_specs(pair, settings), *extra)}
    known = specs | ({} if pair.engines else {spec.name: spec for spec in _subsets(pair, settings)})
    for option, names in {"--contestants": only or (), "--without": without}.items():
        for name in names:
            if name not in known and "@" not in name:
                raise OptionError(f"{option} {name}: no such contestant; there are {', '.join(known)}")
    if SHARED in without:
        raise OptionError(f"--without {SHARED}: all others are compared with it; leave another out")
    if only is not None:
        specs = {name: spec for name, spec in known.items() if name == SHARED or name in only}
    specs |= {
        spec.name: spec
        for name in (*add, *(n for n in only or () if "@" in n))
        for spec in [_added(pair, settings, name)]
    }
    return [spec for name, spec in specs.items() if name not in without]


def _side(pair: Pair, name: str, settings: Settings) -> Spec:
    artifacts = pair.side(name)
    count = len(artifacts)
    title = "shared" if name == SHARED else f"{count} separate in sequence"
    tasks = tuple(task for artifact in artifacts for task in artifact.tasks)
    return Spec(name, title, name, pair.bundle.path, artifacts, tasks, artifacts[0].precision, settings)


def _concurrent(pair: Pair, settings: Settings) -> Spec:
    spec = replace(_side(pair, SEPARATE, settings), name=CONCURRENT, kind=CONCURRENT)
    count = len(spec.artifacts)
    if pair.engines:
        return replace(spec, title=f"{count} separate on one stream each")
    threads = max(1, (settings.threads or usable_cores()) // count)
    word = f"{threads} thread" + ("s" if threads > 1 else "")
    return replace(spec, title=f"{count} separate at once, {word} each", settings=replace(settings, threads=threads))


def _one_graph(pair: Pair, settings: Settings) -> Spec:
    spec = _side(pair, SEPARATE, settings)
    return replace(spec, name=ONE_GRAPH, kind=ONE_GRAPH, title=f"{len(spec.artifacts)} separate as one CUDA graph")


def _subsets(pair: Pair, settings: Settings) -> list[Spec]:
    shared = _side(pair, SHARED, settings)
    return [
        replace(
            shared, name=f"{SHARED}:{task.name}", title=f"shared, only {task.name}", kind=SUBSET, tasks=(task.name,)
        )
        for task in pair.bundle.manifest.tasks
    ]


def _added(pair: Pair, settings: Settings, text: str) -> Spec:
    """Return a contestant of another precision."""
    name, _, precision = text.partition("@")
    makers = {SHARED: _side, SEPARATE: _side}
    if name not in (*makers, CONCURRENT) or not precision:
        raise OptionError(f"--add {text}: use shared, separate or concurrent with a precision, such as separate@fp32")
    other = of_precision(pair, precision)
    spec = _concurrent(other, settings) if name == CONCURRENT else _side(other, name, settings)
    if spec.precision == pair.shared.precision:
        raise OptionError(f"--add {text}: {precision} is what is measured already; name another precision")
    return replace(spec, name=f"{name}@{precision}", title=f"{spec.title}, {spec.precision}")
