"""ONNX Runtime's model package: one folder with a variant for each execution provider.

ONNX Runtime 1.32 and later open it and choose. The format is that of the model package library in ONNX Runtime's repository
(``model_package/README.md``, schema 1.0): a ``manifest.json`` that names components and their variants, and shared assets, which
are folders named by the SHA-256 of what they hold, so that variants with the same graph share one file. ONNX Runtime reads each
variant's ``executor_info["ort"]``. The bundle's own manifest travels as additional metadata: tasks, labels, preprocessing and
verification stay with the graphs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.manifest import MANIFEST, Artifact, Bundle, open_bundle
from mtl_deploy.runtime.bundle.writing import claimed, write_file
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.text import as_unicode

SCHEMA_VERSION = "1.0"
COMPONENT = "shared"
ASSETS = "shared_assets"
METADATA = "mtl_deploy"


@dataclass(frozen=True)
class Variant:
    """A variant of the package.

    Attributes:
        name: of the variant.
        provider: ONNX Runtime's name of the execution provider.
        precisions: that it can have, the first that the bundle holds is taken. INT8 only where it was asked for.
    """

    name: str
    provider: str
    precisions: tuple[str, ...]


VARIANTS = (
    Variant("cpu", "CPUExecutionProvider", ("int8-cpu", "fp32")),
    Variant("openvino", "OpenVINOExecutionProvider", ("int8-cpu", "fp32")),
    Variant("cuda", "CUDAExecutionProvider", ("fp16", "fp32")),
    Variant("tensorrt", "TensorrtExecutionProvider", ("int8", "fp16", "fp32")),
    Variant("tensorrt-rtx", "NvTensorRTRTXExecutionProvider", ("int8", "fp16", "fp32")),
)
"""Execution providers with the precisions that they run well, the fastest first.

A provider that a build of ONNX Runtime lacks is never chosen there. CUDA's runs Q/DQ convolutions in floats, so it gets no INT8.
"""


def write_package(source: Path, folder: Path, precisions: Sequence[str] = (), *, force: bool = False) -> dict[str, str]:
    """Write a bundle's shared graphs as a model package.

    Args:
        source: the bundle.
        folder: to write; it appears whole or not at all.
        precisions: that may be used; empty: all that the bundle has but INT8, which is only used where it is asked for. ``int8``
            stands for both styles.
        force: replace a package that is there.

    Returns:
        the precision of each variant, by its name.

    Raises:
        BundleError: there is no readable bundle, or it has no such graphs.
        IntegrityError: a graph does not match its SHA-256.
        OptionError: the folder exists, cannot be written, or no provider runs these precisions.
    """
    bundle = open_bundle(source)
    graphs = {
        artifact.precision: artifact
        for artifact in bundle.manifest.artifacts
        if artifact.role == "shared" and artifact.backend == "onnxruntime"
    }
    chosen = _chosen(bundle, graphs, precisions)
    with claimed(folder, force=force, inputs=(source,), option="--package ort") as claim, claim.writing() as staged:
        disk.make_folder(staged / ASSETS)
        uris = {
            precision: _add_asset(staged, f"{precision}.onnx", bundle.read(graphs[precision]))
            for precision in dict.fromkeys(chosen.values())
        }
        text = as_unicode(json.dumps(_manifest(bundle, chosen, uris), indent=2, ensure_ascii=False), json=True)
        write_file(staged, MANIFEST, (text + "\n").encode())
    return {variant.name: precision for variant, precision in chosen.items()}


def _chosen(bundle: Bundle, graphs: dict[str, Artifact], precisions: Sequence[str]) -> dict[Variant, str]:
    allowed = set(precisions) or {name for name in graphs if not name.startswith("int8")}
    if "int8" in allowed:
        allowed.add("int8-cpu")
    if missing := sorted(name for name in precisions if name not in graphs and f"{name}-cpu" not in graphs):
        raise OptionError(
            f"{bundle.path} has no {', '.join(missing)} graph of all tasks; it has {', '.join(graphs) or 'none at all'}"
        )
    chosen = {}
    for variant in VARIANTS:
        found = next((name for name in variant.precisions if name in allowed and name in graphs), None)
        if found is not None:
            chosen[variant] = found
    if not chosen:
        raise OptionError(
            f"no execution provider runs {', '.join(sorted(allowed & set(graphs))) or 'these precisions'}; add fp32"
        )
    return chosen


def _add_asset(folder: Path, name: str, content: bytes) -> str:
    """Write a file as a shared asset, and return the reference to it.

    A folder's digest is that of a text with one line per file: its SHA-256, two spaces, its path.
    """
    listed = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    digest = hashlib.sha256(listed.encode()).hexdigest()
    write_file(folder, f"{ASSETS}/sha256-{digest}/{name}", content)
    return f"sha256:{digest}/{name}"


def _manifest(bundle: Bundle, chosen: dict[Variant, str], uris: dict[str, str]) -> dict[str, Any]:
    tasks = ", ".join(task.name for task in bundle.manifest.tasks)
    return {
        "schema_version": SCHEMA_VERSION,
        "package_name": bundle.manifest.name,
        "description": f"one network, several tasks: {tasks}",
        "layout": "portable",
        "components": {
            COMPONENT: {
                "variants": {
                    variant.name: {
                        "ep": variant.provider,
                        "executor_info": {"ort": {"model_file": uris[precision]}},
                        "additional_metadata": {"precision": precision},
                    }
                    for variant, precision in chosen.items()
                }
            }
        },
        "additional_metadata": {METADATA: bundle.manifest.to_dict()},
    }
