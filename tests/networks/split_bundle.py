"""Bundles in parts, written without the exporter: graphs of onnx.helper, cut by the real cutter, run by the real ONNX Runtime.

The network of :func:`write_uneven_bundle` has two stages; ``a`` reads the second; a neck that reads both serves ``b`` and ``c``.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.calibration.split.stage import cut_graph
from mtl_deploy.runtime.bundle.manifest import Artifact, Manifest, Part, open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.writing import write_manifest

SIZE = (16, 24)
TASKS = ("a", "b", "c")
PARTS = ("backbone", "neck-1", "head-a", "head-b", "head-c")
_WIDTHS = (4, 8)


def uneven_signature() -> Signature:
    tasks = tuple(Task(name, "regression", size=size) for name, size in zip(TASKS, (1, 2, 3), strict=True))
    return Signature(tasks, Preprocessing(*SIZE), "logits")


def uneven_graph(batch: int | None = None) -> bytes:
    """Return the network as an ``.onnx`` file, checked by ``onnx.checker``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, made = np.random.default_rng(1), helper.make_node
    first, second = _WIDTHS
    weights = {
        "w1": rng.standard_normal((first, 3, 3, 3)).astype(np.float32) / 300,
        "w2": rng.standard_normal((second, first, 3, 3)).astype(np.float32) / 3,
        "low": rng.standard_normal((first, first, 1, 1)).astype(np.float32),
        "high": rng.standard_normal((first, second, 1, 1)).astype(np.float32),
        "deep": rng.standard_normal((first, first, 3, 3)).astype(np.float32) / 3,
        "scales": np.array([1, 1, 2, 2], np.float32),
        "wa": rng.standard_normal((second, 1)).astype(np.float32),
        "wb": rng.standard_normal((first, 2)).astype(np.float32),
        "wc": rng.standard_normal((first, 3)).astype(np.float32),
    }
    strided = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        made("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        made("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        made("Conv", ["planes", "w1"], ["conv1"], **strided),
        made("Relu", ["conv1"], ["stage1"]),
        made("Conv", ["stage1", "w2"], ["conv2"], **strided),
        made("Relu", ["conv2"], ["stage2"]),
        made("Conv", ["stage2", "high"], ["upper"]),
        made("Resize", ["upper", "", "scales"], ["wide"], mode="nearest"),
        made("Conv", ["stage1", "low"], ["lower"]),
        made("Add", ["wide", "lower"], ["joined"]),
        made("Relu", ["joined"], ["neck"]),
        made("Conv", ["neck", "deep"], ["deeper"], pads=[1, 1, 1, 1]),
    ]
    for task, source in zip(TASKS, ("stage2", "neck", "deeper"), strict=True):
        nodes += [
            made("GlobalAveragePool", [source], [f"pooled_{task}"]),
            made("Flatten", [f"pooled_{task}"], [f"flat_{task}"]),
            made("MatMul", [f"flat_{task}", f"w{task}"], [task]),
        ]
    count: Any = batch or "batch"
    outputs = [
        helper.make_tensor_value_info(task.name, TensorProto.FLOAT, [count, task.size])
        for task in uneven_signature().tasks
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [count, *SIZE, 3])
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "uneven", [image], outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: uneven_signature().to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def write_uneven_bundle(folder: Path, batch: int | None = None) -> Path:
    """Write the network as a bundle with its parts."""
    folder.mkdir(parents=True)
    content = uneven_graph(batch)
    (folder / "fp32.onnx").write_bytes(content)
    whole = Artifact(
        path="fp32.onnx",
        role="shared",
        tasks=TASKS,
        precision="fp32",
        backend="onnxruntime",
        batch_min=batch or 1,
        batch_max=batch,
        opset=17,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        parameters=1,
        multiply_adds=1,
    )
    write_manifest(folder, Manifest(folder.stem, uneven_signature(), (whole,)))
    return cut_bundle(folder)


class _Any(dict):  # type: ignore[type-arg]
    def __missing__(self, key: object) -> tuple[int, int]:
        return 1, 1


def cut_bundle(folder: Path) -> Path:
    """Cut each shared graph of a bundle into parts, and write them into it."""
    bundle = open_bundle(folder)
    preprocessing = bundle.manifest.signature.preprocessing
    size = preprocessing.height, preprocessing.width
    images = np.random.default_rng(2).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    parts: list[Part] = []
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.backend) == ("shared", "onnxruntime"):
            cut = cut_graph(bundle.read(artifact), artifact, preprocessing, [images], _Any(), threads=1)
            cut.write(folder)
            parts += cut.parts
    write_manifest(folder, replace(bundle.manifest, parts=tuple(parts)))
    return folder


def add_engines(folder: Path, batch_max: int = 8, **changes: Any) -> Path:
    """Write an engine of each graph and each part of a bundle, for the simulated machine; ``changes`` are of their records."""
    from tests.fakes.gpu import engine_artifact, record_of
    from tests.fakes.tensorrt import make_plan

    manifest = open_bundle(folder).manifest
    made: dict[str, list[Any]] = {"artifacts": [], "parts": []}
    for word, found in made.items():
        for graph in getattr(manifest, word):
            content = (folder / graph.path).read_bytes()
            found.append(
                engine_artifact(
                    graph, make_plan(content, batch_max), batch_max, record_of(graph.path, content, **changes)
                )
            )
            (folder / found[-1].path).write_bytes(make_plan(content, batch_max))
    artifacts, parts = (*manifest.artifacts, *made["artifacts"]), (*manifest.parts, *made["parts"])
    write_manifest(folder, replace(manifest, artifacts=artifacts, parts=parts))
    return folder
