"""The reference in a bundle: generated images with PyTorch's outputs, so that a device without PyTorch can verify an engine."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.files.arrays import read_archive
from mtl_deploy.runtime.files.reading import DocumentError

from .manifest import Bundle
from .signature import Signature
from .tasks import Task

PATH = "reference.npz"
MOST_BYTES = 1 << 30
"""Of all arrays, unpacked."""

Images = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """The images and outputs that engines are verified with.

    Attributes:
        images: ``(N, H, W, C) uint8``, RGB where C is 3; frames of a camera where the graphs take these.
        outputs: PyTorch's, by task, in the graphs' form.
        int8: the INT8 graph's own, by task; empty where there is no such graph.
        margins: how sure the network is of each pixel, ``(N, H, W) float16``, by task: for class indices, by how many logits the
            class leads the next one; for normals, their length before normalisation. Of boxes that a graph keeps, the rows that it
            had to choose from.
        floors: the noise floor of each image, ``(N, K) float64``, by task: how far PyTorch's float32 is from its float64, for
            each value or for all together. Empty in bundles of earlier releases.
    """

    images: Images
    outputs: Outputs
    int8: Outputs
    margins: Outputs = field(default_factory=dict)
    floors: Outputs = field(default_factory=dict)


def pack(
    images: Images,
    outputs: Mapping[str, npt.NDArray[Any]],
    int8: Mapping[str, npt.NDArray[Any]] | None = None,
    margins: Mapping[str, npt.NDArray[Any]] | None = None,
    floors: Mapping[str, npt.NDArray[Any]] | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """Return the file, and the manifest's record of it.

    Args:
        images: ``(N, H, W, C) uint8``, RGB where C is 3.
        outputs: PyTorch's, by task, in the graphs' form.
        int8: of the INT8 graph in TensorRT's style, as ONNX Runtime computes them: what an INT8 engine must match.
        margins: see :class:`Reference`.
        floors: see :class:`Reference`.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, **{f"outputs/{name}": array for name, array in outputs.items()}}
    arrays |= {f"int8/{name}": array for name, array in (int8 or {}).items()}
    arrays |= {f"margins/{name}": array for name, array in (margins or {}).items()}
    arrays |= {f"floors/{name}": array for name, array in (floors or {}).items()}
    np.savez_compressed(stream, **arrays)
    content = stream.getvalue()
    record = {
        "path": PATH,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "images": len(images),
    }
    return content, record


def read(bundle: Bundle) -> Reference | None:
    """Return the reference; None where the bundle has none.

    Raises:
        BundleError: the file does not match the manifest, or is malformed.
    """
    record = bundle.manifest.reference
    if not record:
        return None
    for name in ("path", "sha256"):
        if name not in record:
            raise BundleError(f"{bundle.path}: the manifest's reference has no {name}; export again")
    content = bundle.read_checked(record["path"], record["sha256"])
    signature = bundle.manifest.signature
    names = [task.name for task in signature.tasks]
    kinds = ("outputs", "int8", "margins", "floors")
    try:
        arrays, _ = read_archive(
            content, {"images", *(f"{kind}/{name}" for kind in kinds for name in names)}, MOST_BYTES
        )
        _check_images(arrays, signature)
        found = {
            kind: {name: arrays[f"{kind}/{name}"] for name in names if f"{kind}/{name}" in arrays} for kind in kinds
        }
        for name in names:
            if name not in found["outputs"]:
                raise DocumentError(f"no array 'outputs/{name}'")
            for kind in ("outputs", "int8"):
                _check_outputs(found[kind].get(name), len(arrays["images"]), signature, name)
            _check_margins(found["margins"].get(name), found["outputs"][name], signature.task(name))
            most = max(signature.task(name).size, found["outputs"][name][0].size)  # one floor per value, at most
            _check_floors(found["floors"].get(name), len(arrays["images"]), most, name)
    except (DocumentError, TaskError) as error:
        raise BundleError(f"{bundle.path / record['path']}: malformed: {error}; export again") from error
    return Reference(arrays["images"], found["outputs"], found["int8"], found["margins"], found["floors"])


def _check_images(arrays: Mapping[str, npt.NDArray[Any]], signature: Signature) -> None:
    images, of = arrays.get("images"), signature.preprocessing
    shape = of.image_shape
    if images is None:
        raise DocumentError("no array 'images'")
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise DocumentError(
            f"images are {images.dtype} {images.shape}; expected uint8 (N, {', '.join(map(str, shape))})"
        )


def _check_outputs(array: npt.NDArray[Any] | None, count: int, signature: Signature, name: str) -> None:
    if array is None:
        return
    shape, dtype = (count, *signature.sample_shape(name)), signature.dtype(name)
    if array.shape != shape or (array.dtype.kind == "f") != (dtype.kind == "f") or array.dtype.kind not in "fiu":
        raise DocumentError(f"outputs of {name} are {array.dtype} {array.shape}; expected {dtype} {shape}")


def _check_floors(array: npt.NDArray[Any] | None, count: int, size: int, name: str) -> None:
    if array is None:
        return
    fits = array.ndim == 2 and len(array) == count and 1 <= array.shape[1] <= max(size, 1)
    if array.dtype.kind != "f" or not fits:
        raise DocumentError(
            f"floors of {name} are {array.dtype} {array.shape}; expected float64 ({count}, 1 to {size})"
        )


def _check_margins(array: npt.NDArray[Any] | None, outputs: npt.NDArray[Any], task: Task) -> None:
    if array is None:
        return
    name, shape = task.name, (len(outputs), *task.of.margins_shape(task, outputs.shape[1:]))
    if array.dtype.kind != "f" or array.shape != shape:
        raise DocumentError(f"margins of {name} are {array.dtype} {array.shape}; expected float16 {shape}")
