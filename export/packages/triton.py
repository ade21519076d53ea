"""A model repository for Triton Inference Server: the raw graphs and engines, and a model that takes encoded images.

Sources: Triton's model repository and model configuration pages (docs/user_guide/model_repository.md and model_configuration.md of
triton-inference-server/server), and ``model_config.proto`` of triton-inference-server/common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.manifest import MANIFEST, Artifact, Bundle, open_bundle
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.bundle.writing import claimed, write_file, write_manifest
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.text import as_unicode
from mtl_deploy.runtime.serving.triton import BUNDLE, IMAGE, PREDICTIONS

from .pbtxt import Word, text

MOST_BATCH = 32  # of graphs that take any number of images
QUEUE_DELAY_US = 1000
_PYTHON = """\
from mtl_deploy.runtime.files.text import as_unicode
from mtl_deploy.runtime.serving.triton import TritonPythonModel  # pip install 'mtl-deploy[runtime]' beside the server

__all__ = ["TritonPythonModel"]
"""
_TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}


@dataclass(frozen=True)
class Repository:
    """What was written.

    Attributes:
        models: names of the models, the one that takes encoded images first.
        left_out: sentences on what the bundle has and the repository has not.
    """

    models: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def write_repository(source: Path, folder: Path, precisions: Sequence[str] = (), *, force: bool = False) -> Repository:
    """Write a bundle as a Triton model repository.

    Args:
        source: the bundle.
        folder: to write; it appears whole or not at all.
        precisions: whose graphs and engines are served; the first is that of encoded images. Empty: all that the bundle has, and
            the runtime's own choice for encoded images.
        force: replace a repository that is there.

    Raises:
        BundleError: there is no readable bundle.
        IntegrityError: a file does not match its SHA-256.
        OptionError: the folder cannot be written, the bundle has no such graphs, or a task has a reserved name.
    """
    bundle = open_bundle(source)
    signature, name = bundle.manifest.signature, bundle.manifest.name
    if clash := [task.name for task in signature.tasks if task.name in (IMAGE, PREDICTIONS)]:
        raise OptionError(f"a task is called {clash[0]!r}, as an input or output of the Triton model is; rename it")
    shared = [artifact for artifact in bundle.manifest.artifacts if artifact.role == "shared"]
    wanted = [artifact for artifact in shared if not precisions or _asked(artifact.precision, precisions)]
    if missing := [word for word in precisions if not any(_asked(item.precision, [word]) for item in shared)]:
        raise OptionError(f"{bundle.path} has no {', '.join(missing)} graph or engine of all tasks")
    served = [artifact for artifact in wanted if _is_served(artifact)]
    left_out = [
        f"{artifact.path}: Triton has no backend for engines of TensorRT-RTX; serve its graph"
        for artifact in wanted
        if artifact not in served
    ]
    encoded = signature.preprocessing.channel_count in (1, 3)
    if not encoded:
        left_out.append(
            f"no model for encoded images: the network takes {signature.preprocessing.channel_count} channels"
        )
    with claimed(folder, force=force, inputs=(source,), option="--triton") as claim, claim.writing() as staged:
        models = []
        if encoded:
            models.append(name)
            _write_encoded(staged / name, name, bundle, wanted, precisions[0] if precisions else None)
        for artifact in served:
            models.append(f"{name}-{artifact.precision}{'' if artifact.backend == 'onnxruntime' else '-tensorrt'}")
            _write_raw(staged / models[-1], models[-1], bundle, artifact)
        listed = {"triton_models": models, "bundle": bundle.manifest.to_dict()}
        write_file(staged, MANIFEST, (as_unicode(json.dumps(listed, indent=2), json=True) + "\n").encode())
    return Repository(tuple(models), tuple(left_out))


def _asked(precision: str, precisions: Sequence[str]) -> bool:
    return precision in precisions or (precision == "int8-cpu" and "int8" in precisions)


def _is_served(artifact: Artifact) -> bool:
    return artifact.backend == "onnxruntime" or artifact.details.get("library", "tensorrt") == "tensorrt"


def _write_encoded(folder: Path, name: str, bundle: Bundle, served: Sequence[Artifact], precision: str | None) -> None:
    """Write the model that takes bytes of image files; it has a bundle of what is served beside its code."""
    signature = bundle.manifest.signature
    config: dict[str, Any] = {
        "name": name,
        "backend": "python",
        "max_batch_size": MOST_BATCH,
        "input": [{"name": IMAGE, "data_type": Word("TYPE_STRING"), "dims": [1]}],
        "output": [
            {"name": PREDICTIONS, "data_type": Word("TYPE_STRING"), "dims": [1]},
            *_outputs(signature, signature.preprocessing.multiple > 0),
        ],
        "instance_group": [{"count": 1, "kind": Word("KIND_AUTO")}],
        "version_policy": {"latest": {"num_versions": 1}},
        "dynamic_batching": {"max_queue_delay_microseconds": QUEUE_DELAY_US},
    }
    if precision is not None:
        config["parameters"] = [{"key": "precision", "value": {"string_value": precision}}]
    _make(folder, folder / "1", folder / "1" / BUNDLE)
    write_file(folder, "config.pbtxt", text(config).encode())
    write_file(folder / "1", "model.py", _PYTHON.encode())
    for artifact in served:
        write_file(folder / "1" / BUNDLE, artifact.path, bundle.read_checked(artifact.path, artifact.sha256))
    manifest = replace(bundle.manifest, artifacts=tuple(served), reference={}, calibration={})
    write_manifest(folder / "1" / BUNDLE, manifest)


def _write_raw(folder: Path, name: str, bundle: Bundle, artifact: Artifact) -> None:
    """Write a graph or an engine as it is: its outputs are the signature's."""
    signature = bundle.manifest.signature
    preprocessing = signature.preprocessing
    engine = artifact.backend != "onnxruntime"
    fixed = artifact.batch_min > 1  # Triton's batches begin with one image
    free = preprocessing.multiple > 0 and not engine
    channels = preprocessing.channel_count
    one = list(preprocessing.input_shape)
    if free:
        one = [-1, -1, channels] if preprocessing.input == "uint8" else [channels, -1, -1]
    batch = [artifact.batch_min] if fixed else []
    kind = _TYPES["uint8" if preprocessing.input == "uint8" else "float32"]
    outputs, labels = _outputs(signature, free), _labels(signature)
    for output in outputs:
        output["dims"] = [*batch, *output["dims"]]
        if output["name"] in labels:
            output["label_filename"] = f"{output['name']}.txt"
    warm_up = [preprocessing.height if side == -1 else side for side in one]
    config: dict[str, Any] = {
        "name": name,
        "backend": "tensorrt" if engine else "onnxruntime",
        "max_batch_size": 0 if fixed else artifact.batch_max or MOST_BATCH,
        "input": [{"name": INPUT_NAME, "data_type": Word(kind), "dims": [*batch, *one]}],
        "output": outputs,
        "instance_group": [{"count": 1, "kind": Word("KIND_GPU" if engine else "KIND_AUTO")}],
        "version_policy": {"latest": {"num_versions": 1}},
        "model_warmup": [
            {
                "name": "zeros",
                "batch_size": 0 if fixed else 1,
                "inputs": [
                    {
                        "key": INPUT_NAME,
                        "value": {"data_type": Word(kind), "dims": [*batch, *warm_up], "zero_data": True},
                    }
                ],
            }
        ],
    }
    if not fixed:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": QUEUE_DELAY_US} | _preferred(artifact)
    _make(folder, folder / "1")
    for task, words in labels.items():
        write_file(folder, f"{task}.txt", "".join(f"{word}\n" for word in words).encode())
    write_file(folder, "config.pbtxt", text(config).encode())
    write_file(folder / "1", "model.plan" if engine else "model.onnx", bundle.read(artifact))


def _preferred(artifact: Artifact) -> dict[str, Any]:
    """Return the batch that an engine is tuned for, which Triton waits for."""
    tuned = artifact.details.get("batch_opt")
    return {} if tuned is None or tuned < 2 else {"preferred_batch_size": [tuned]}


def _outputs(signature: Signature, free: bool) -> list[dict[str, Any]]:
    """Return the tasks' outputs; dimensions that follow a free size are -1."""
    of = signature.preprocessing
    found = []
    for task in signature.tasks:
        shape = signature.sample_shape(task.name)
        if free:
            larger = signature.sample_shape(task.name, of.height + of.multiple, of.width + of.multiple)
            shape = tuple(side if side == other else -1 for side, other in zip(shape, larger, strict=True))
        kind = _TYPES[np.dtype(signature.dtype(task.name)).name]
        found.append({"name": task.name, "data_type": Word(kind), "dims": list(shape)})
    return found


def _labels(signature: Signature) -> Mapping[str, Sequence[str]]:
    """Return the labels of tasks with one value per label, for Triton's classification extension."""
    return {
        task.name: [label.replace("\n", " ") for label in task.labels]
        for task in signature.tasks
        if task.labels and signature.sample_shape(task.name) == (len(task.labels),)
    }


def _make(*folders: Path) -> None:
    for folder in folders:
        disk.make_folder(folder)
