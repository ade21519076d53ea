"""The reference in a bundle: generated images with what PyTorch gives, so that a device without PyTorch can verify an engine."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .errors import BundleError

PATH = "reference.npz"

Images = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """What engines are verified with.

    Attributes:
        images: ``(N, H, W, 3) uint8, RGB``.
        outputs: PyTorch's, by task, in the graphs' form.
        int8: the INT8 graph's own, by task; empty where there is no such graph.
        margins: how sure the network is of each pixel, ``(N, H, W) float16``, by task: of maps of class indices by how much the
            class leads the next, in logits; of normals their length before it was made 1.
        floors: the noise floor of each image, ``(N, K) float64``, by task: how far PyTorch's own float32 is off its float64, for
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
        images: ``(N, H, W, 3) uint8, RGB``.
        outputs: PyTorch's, by task, in the graphs' form.
        int8: of the INT8 graph in TensorRT's style, as ONNX Runtime gives them: what an INT8 engine must match.
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
        BundleError: the file is not the manifest's, or malformed.
    """
    record = bundle.manifest.reference
    if not record:
        return None
    content = bundle.read_checked(str(record["path"]), str(record["sha256"]))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            images = arrays["images"]
            outputs = {task.name: arrays[f"outputs/{task.name}"] for task in bundle.manifest.tasks}
            names = [task.name for task in bundle.manifest.tasks if f"int8/{task.name}" in arrays]
            int8 = {name: arrays[f"int8/{name}"] for name in names}
            names = [task.name for task in bundle.manifest.tasks if f"margins/{task.name}" in arrays]
            margins = {name: arrays[f"margins/{name}"] for name in names}
            names = [task.name for task in bundle.manifest.tasks if f"floors/{task.name}" in arrays]
            floors = {name: arrays[f"floors/{name}"] for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{bundle.path / record['path']}: malformed ({error}); export again") from error
    return Reference(images, outputs, int8, margins, floors)
