"""What is installed, by the metadata that pip leaves: nothing is imported, so that nothing can fail or end the process."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from mtl_deploy import __version__
from mtl_deploy.runtime.backends.tensorrt.library import LIBRARIES, version_numbers
from mtl_deploy.runtime.backends.tensorrt.library import installed as installed_tensorrt
from mtl_deploy.runtime.backends.tensorrt.start import built_for, installed_version

_PROJECT = "mtl-deploy"
_OTHERS = ("onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python", "opencv-python-headless", "pycuda")
"""What commands use beside the names in the extras: other builds of the same library."""
_BUILDS = (("onnxruntime", "onnxruntime-gpu"), ("opencv-python", "opencv-python-headless"))
"""Builds of one library that share an import name: two of them break each other."""
_BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
_COMMANDS: dict[str, tuple[tuple[tuple[str, ...], ...], str]] = {
    "mtl-infer": ((_BACKENDS, ("PIL",)), "runtime,images"),
    "mtl-bench": ((_BACKENDS,), "runtime"),
    "mtl-calibrate": ((("onnx",), ("onnx_ir",), ("onnxruntime",), ("PIL",)), "runtime,calibration"),
    "mtl-export": ((("torch",), ("onnx",), ("onnxscript",), ("onnxruntime",), ("PIL",)), "export"),
}
"""By command: modules, one of each group of which it needs, and the extras that bring them."""


def libraries() -> dict[str, Any]:
    """Return this package's version, the libraries that it may use with their versions, and which commands can work."""
    named = _requirements()
    versions: dict[str, str] = {}
    for name in sorted({*named, *_OTHERS}):
        if not name.startswith(LIBRARIES) and (found := _version(name)) is not None:
            versions[name] = found
    engines = {}
    for name in LIBRARIES:
        if name in installed_tensorrt():
            engines[name] = {"version": installed_version(name), "cuda": built_for(name)}
    return {
        "mtl_deploy": __version__,
        "installed_as": _installed_as(),
        "versions": versions,
        "tensorrt": engines,
        "commands": {name: _lacks(*needs) for name, needs in _COMMANDS.items()},
        "problems": [*_conflicts(versions), *_unfit(named, versions)],
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _installed_as() -> str:
    """Return ``wheel``, ``editable`` (a checkout) or ``sources`` (on the path, but not installed)."""
    try:
        found = metadata.distribution(_PROJECT)
    except metadata.PackageNotFoundError:
        return "sources"
    return "editable" if '"editable": true' in (found.read_text("direct_url.json") or "") else "wheel"


def _requirements() -> dict[str, str]:
    """Return the versions that this package's extras ask for, by name: ``onnxruntime`` and ``>=1.20``."""
    try:
        texts = metadata.requires(_PROJECT) or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for text in texts:
        name, bounds = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)", text).groups()  # type: ignore[union-attr]
        if name.lower() != _PROJECT and "extra == 'dev'" not in text.replace('"', "'"):
            found.setdefault(name.lower(), bounds.strip(" ()"))
    return found


def _lacks(groups: tuple[tuple[str, ...], ...], extras: str) -> dict[str, Any]:
    missing = [" or ".join(group) for group in groups if not any(find_spec(name) for name in group)]
    return {"missing": missing, "install": f"pip install '{_PROJECT}[{extras}]'" if missing else None}


def _conflicts(versions: dict[str, str]) -> list[str]:
    return [
        f"{first} and {second} are both installed and overwrite each other's files: pip uninstall --yes {first} {second}, then "
        "install the one that you want"
        for first, second in _BUILDS
        if first in versions and second in versions
    ]


def _unfit(named: dict[str, str], versions: dict[str, str]) -> list[str]:
    """Return what is installed in a version outside the bounds that this package asks for."""
    problems = []
    for name, bounds in named.items():
        if name in versions and not _within(version_numbers(versions[name]), bounds):
            problems.append(f"{name} {versions[name]} is installed, and this release asks for {name}{bounds}")
    return problems


def _within(here: tuple[int, ...], bounds: str) -> bool:
    limits = [(sign, version_numbers(text)) for sign, text in re.findall(r"(>=|<)\s*([\d.]+)", bounds)]
    return all(
        _padded(here) >= _padded(limit) if sign == ">=" else _padded(here) < _padded(limit) for sign, limit in limits
    )


def _padded(version: tuple[int, ...]) -> tuple[int, ...]:
    return (*version, 0, 0, 0)[:3]
