"""A small bundle of dense tasks, written without the exporter: graphs made with onnx.helper, run by the real ONNX Runtime.

The network is a 4x4 convolution of stride 4 and ReLU, then a 1x1 convolution a task: segmentation, depth and normals.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.manifest import Artifact, Manifest
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.writing import write_manifest

STRIDE = 4
SIZE = (36, 52)  # height and width, odd multiples of the stride
CHANNELS = 8
LABELS = ("wall", "floor", "chair", "table", "lamp")


def dense_signature(
    *,
    size: tuple[int, int] = SIZE,
    outputs: str = "decoded",
    image_input: str = "uint8",
    fit: str = "stretch",
    multiple: int = 0,
    resize_to: tuple[int, ...] = (),
    upsample: bool = True,
    argmax: bool = True,
    classes: int = len(LABELS),
    valid_range: tuple[float, float] | None = (0.5, 10.0),
) -> Signature:
    """Return the signature of the network's three tasks ``seg``, ``depth`` and ``normals``."""
    labels = LABELS if classes == len(LABELS) else ()
    tasks = (
        Task("seg", "segmentation", labels=labels, size=classes, stride=STRIDE, upsample=upsample, argmax=argmax),
        Task(
            "depth", "depth", unit="metres", size=1, scale=2.0, offset=0.25, stride=STRIDE, upsample=upsample,
            valid_range=valid_range,
        ),
        Task("normals", "normals", size=3, stride=STRIDE, upsample=upsample),
    )  # fmt: skip
    preprocessing = Preprocessing(*size, input=image_input, fit=fit, multiple=multiple, resize_to=resize_to)  # type: ignore[arg-type]
    return Signature(tasks, preprocessing, outputs)  # type: ignore[arg-type]


def write_dense_bundle(
    folder: Path,
    *,
    batch: int | None = None,
    batch_max: int | None = None,
    precisions: tuple[str, ...] = ("fp32",),
    separate: bool = True,
    **options: Any,
) -> Path:
    """Write the shared graph, one graph per task, and their manifest; ``options`` are :func:`dense_signature`'s."""
    signature = dense_signature(**options)
    (folder / "separate").mkdir(parents=True)
    artifacts = []
    for precision in precisions:
        sides = [("shared", f"{precision}.onnx", signature)]
        if separate:
            suffix = "" if precision == "fp32" else f".{precision}"
            sides += [
                ("separate", f"separate/{task.name}{suffix}.onnx", signature.subset([task.name]))
                for task in signature.tasks
            ]
        for role, path, own in sides:
            content = dense_graph(own, batch)
            (folder / path).write_bytes(content)
            pixels = own.preprocessing.height * own.preprocessing.width // STRIDE**2
            artifacts.append(
                Artifact(
                    path=path,
                    role=role,
                    tasks=tuple(task.name for task in own.tasks),
                    precision=precision,
                    backend="onnxruntime",
                    batch_min=batch or 1,
                    batch_max=batch or batch_max,
                    opset=17,
                    sha256=hashlib.sha256(content).hexdigest(),
                    size_bytes=len(content),
                    parameters=CHANNELS * (48 + sum(task.size for task in own.tasks)),
                    multiply_adds=pixels * CHANNELS * (48 + sum(task.size for task in own.tasks)),
                )
            )
    write_manifest(folder, Manifest(folder.stem, signature, tuple(artifacts), {"ideal_ratio": 2.5}))
    return folder


def dense_weights(signature: Signature) -> dict[str, np.ndarray]:
    """Return the network's weights: ``trunk`` ``(CHANNELS, 3, 4, 4)`` and one ``(size, CHANNELS, 1, 1)`` a task."""
    rng = np.random.default_rng(3)
    weights = {"trunk": rng.standard_normal((CHANNELS, 3, STRIDE, STRIDE)).astype(np.float32) / 3}
    for task in signature.tasks:
        head = np.random.default_rng(len(task.name)).standard_normal((task.size, CHANNELS, 1, 1))
        weights[task.name] = (abs(head) if task.kind == "depth" else head - head.mean(axis=0)).astype(np.float32)
    return weights


def dense_graph(signature: Signature, batch: int | None = None) -> bytes:
    """Return the network as a graph with the signature's borders, checked by ``onnx.checker``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from mtl_deploy.runtime.bundle.signature import METADATA_KEY

    made = helper.make_node
    preprocessing = signature.preprocessing
    uint8 = preprocessing.input == "uint8"
    free = bool(preprocessing.multiple)
    sides: list[Any] = ["height", "width"] if free else [preprocessing.height, preprocessing.width]
    count: Any = batch or "batch"
    constants: dict[str, np.ndarray] = dense_weights(signature)
    nodes, current = [], "image"
    if uint8:
        constants |= {
            "pixel.mean": 255 * np.array(preprocessing.mean, np.float32),
            "pixel.std": 255 * np.array(preprocessing.std, np.float32),
        }
        nodes += [
            made("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            made("Sub", ["cast", "pixel.mean"], ["centred"]),
            made("Div", ["centred", "pixel.std"], ["scaled"]),
            made("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        current = "planes"
    strides = {"strides": [STRIDE, STRIDE]}
    nodes += [made("Conv", [current, "trunk"], ["convolved"], **strides), made("Relu", ["convolved"], ["features"])]
    outputs = []
    for task in signature.tasks:
        name = task.name
        decoded = signature.outputs == "decoded"
        raw = f"{name}_logits" if decoded else name
        nodes.append(made("Conv", ["features", name + ".weight"], [raw], name=f"{name}_head"))
        constants[name + ".weight"] = constants.pop(name)
        if decoded:
            nodes += _decoding(task, raw, constants)
        shape: list[Any] = list(signature.sample_shape(name))
        if free:
            shape[-2:] = sides if decoded and task.upsample else [f"{side}_{name}" for side in sides]
        dtype = helper.np_dtype_to_tensor_dtype(signature.dtype(name))
        outputs.append(helper.make_tensor_value_info(name, dtype, [count, *shape]))
    image = [count, *sides, 3] if uint8 else [count, 3, *sides]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("image", TensorProto.UINT8 if uint8 else TensorProto.FLOAT, image)],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: signature.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _decoding(task: Task, current: str, constants: dict[str, np.ndarray]) -> list[Any]:
    """Return the nodes from a raw output to the decoded one, as docs/bundle.md orders them."""
    from onnx import TensorProto, helper

    made, name, nodes = helper.make_node, task.name, []

    def put(kind: str, inputs: list[str], output: str = "", **attributes: Any) -> None:
        nonlocal current
        nodes.append(made(kind, [current, *inputs], [output or f"{name}.{kind}"], **attributes))
        current = nodes[-1].output[0]

    if task.kind == "depth":
        constants |= {f"{name}.{key}": np.array(getattr(task, key), np.float32) for key in ("scale", "offset")}
        put("Mul", [f"{name}.scale"])
        put("Add", [f"{name}.offset"])
    if task.upsample:
        constants[f"{name}.scales"] = np.array([1, 1, task.stride, task.stride], np.float32)
        put("Resize", ["", f"{name}.scales"], mode="linear", coordinate_transformation_mode="half_pixel")
    if task.kind == "segmentation" and task.argmax:
        put("ArgMax", [], axis=1, keepdims=0)
        put("Cast", [], name, to=TensorProto.INT32 if task.size > 256 else TensorProto.UINT8)
    elif task.kind == "depth":
        if task.valid_range is not None:
            low, high = task.valid_range
            constants |= {f"{name}.low": np.array(low, np.float32), f"{name}.high": np.array(high, np.float32)}
            put("Clip", [f"{name}.low", f"{name}.high"])
        constants[f"{name}.axes"] = np.array([1], np.int64)
        put("Squeeze", [f"{name}.axes"], name)
    elif task.kind == "normals":
        vectors = current
        put("ReduceL2", [], axes=[1], keepdims=1)
        constants[f"{name}.least"] = np.array(1e-6, np.float32)
        put("Max", [f"{name}.least"])
        nodes.append(made("Div", [vectors, current], [name]))
    else:
        put("Identity", [], name)
    return nodes
