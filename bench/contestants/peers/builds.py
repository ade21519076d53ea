"""Engines built anew, several times: the builder chooses kernels by timing them, so every build is one random draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_deploy.bench.contestants.processes import run
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import SUFFIX, Artifact, open_bundle
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import OptionError

MODULE = "mtl_deploy.export.cli"
_CACHES = "*.cache"  # TensorRT-RTX's compiled kernels, beside the engines; one build must not start with another's
_SETTINGS = {"workspace_mib": "--workspace", "optimization_level": "--optimization-level", "threads": "--threads"}


def make_builds(bundle: Path, artifact: Artifact, count: int, folder: Path, progress: Progress) -> list[Path]:
    """Build a bundle's engines of a precision anew, shared and separate, with the same settings; each build is a bundle of its own.

    Every build is a process of its own without a timing cache, so that no build knows another's measurements.

    Args:
        bundle: the folder of the measured bundle.
        artifact: the shared engine; its record says how it was built.
        count: number of builds, 1 or more.
        folder: where the bundles are written, as ``build1.mtl`` and so on; the caller removes it.
        progress: shows how far the work is.

    Returns:
        The bundles' folders. The engines have the same paths in them as in the measured bundle.

    Raises:
        OptionError: ``artifact`` is not an engine, or the count is less than 1.
        BundleError: the engine's record is malformed.
        BackendError: the library that built it cannot build here.
        WorkError: a build failed.
    """
    if artifact.backend != "tensorrt":
        raise OptionError(
            f"--builds: {artifact.path} is a graph, which is not built; leave the option out, or measure engines"
        )
    if count < 1:
        raise OptionError(f"--builds {count}: use 1 or more")
    options = build_options(artifact, str(bundle / artifact.path))
    builds = []
    for number in range(1, count + 1):
        target = folder / f"build{number}{SUFFIX}"
        with progress.step(f"Building engines, {number} of {count}"):
            ended = run(MODULE, [str(bundle), "--output", str(target), "--quiet", *options])
            ended.require("the engines were not built")
        for cache in target.rglob(_CACHES):
            cache.unlink()
        builds.append(target)
    return builds


def built_specs(specs: Sequence[Spec], bundle: Path) -> tuple[Spec, ...]:
    """Return contestants with the engines of a build in place of their own; those that run other artifacts stay the same.

    Args:
        specs: the measured bundle's.
        bundle: the folder of a build, see :func:`make_builds`.
    """
    built = {one.path: one for one in open_bundle(bundle).manifest.artifacts if one.backend == "tensorrt"}
    return tuple(
        replace(spec, path=bundle, artifacts=tuple(built[one.path] for one in spec.artifacts))
        if spec.engines and all(one.path in built for one in spec.artifacts)
        else spec
        for spec in specs
    )


def build_options(engine: Artifact, where: str) -> list[str]:
    """Return the options of ``mtl-export BUNDLE`` that an engine was built with.

    Args:
        engine: its entry in the manifest.
        where: its name in errors.

    Raises:
        BundleError: its record is malformed.
    """
    record = EngineRecord.from_details(engine.details, where)
    settings: dict[str, Any] = record.rest.get("settings") or {}
    profile = (engine.batch_min, record.batch_opt, engine.batch_max or engine.batch_min)
    options = ["--engine", record.library, "--precision", engine.precision, "--batch", ":".join(map(str, profile))]
    if record.library == "tensorrt-rtx" and record.compute_capabilities:
        options += ["--gpu", ",".join(f"sm{text.replace('.', '')}" for text in record.compute_capabilities)]
    if record.hardware_compatibility != "none":
        options += ["--hardware-compatibility", record.hardware_compatibility]
    for name, option in _SETTINGS.items():
        if settings.get(name) is not None:
            options += [option, str(settings[name])]
    if settings.get("tactic_sources"):
        options += ["--tactic-sources", ",".join(settings["tactic_sources"])]
    return [
        *options,
        *(["--version-compatible"] if record.version_compatible else []),
        *(["--tf32"] if settings.get("tf32") else []),
    ]
