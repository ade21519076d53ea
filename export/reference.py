"""The reference in a bundle: generated images with PyTorch's outputs, so that a device without PyTorch can verify an engine."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle import Bundle
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.preprocessing import Preprocessing

PATH = "reference.npz"
COUNT = 8
_SEED = 1  # not the seed of the images that graphs are verified on

Images = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.float32]]


def reference_images(preprocessing: Preprocessing, batch: int | None) -> Images:
    """Generate the images: ``(N, H, W, 3) uint8, RGB``. Never the user's, which may be anybody's faces.

    Args:
        preprocessing: the size.
        batch: the only batch that the network takes; None where it takes any.
    """
    from mtl_deploy.calibration.synthetic import synthetic_images

    count = COUNT if batch is None else -(-COUNT // batch) * batch
    return synthetic_images(count, preprocessing.height, preprocessing.width, seed=_SEED)


def pack(images: Images, outputs: Mapping[str, npt.NDArray[np.float32]]) -> tuple[bytes, dict[str, Any]]:
    """Return the file, and the manifest's record of it.

    Args:
        images: ``(N, H, W, 3) uint8, RGB``.
        outputs: PyTorch's, by task, in the graphs' form.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, **{f"outputs/{name}": array for name, array in outputs.items()}}
    np.savez_compressed(stream, **arrays)
    content = stream.getvalue()
    record = {
        "path": PATH,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "images": len(images),
    }
    return content, record


def read(bundle: Bundle) -> tuple[Images, Outputs] | None:
    """Return images and outputs by task; None where the bundle has no reference.

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
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{bundle.path / record['path']}: malformed ({error}); export again") from error
    return images, outputs
