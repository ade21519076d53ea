"""Where a bundle comes from: checkpoint, libraries and options."""

from __future__ import annotations

import platform
import warnings
from importlib.metadata import distributions
from typing import Any

from mtl_deploy import __version__
from mtl_deploy.export.network.checkpoint import Loaded
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.images import VerificationImages
from mtl_deploy.runtime.errors import UncheckedWarning
from mtl_deploy.runtime.files.dates import created

_LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy")


def provenance(loaded: Loaded, options: Options, images: VerificationImages, notes: list[str]) -> dict[str, Any]:
    """Return the manifest's record.

    Args:
        loaded: the checkpoint.
        options: what was asked for.
        images: that the graphs were verified on.
        notes: what a reader of the bundle should know, such as why the batch is fixed.
    """
    return {
        "checkpoint": {"file": options.checkpoint.name, "sha256": loaded.sha256, "seen": loaded.description},
        "created": created(),
        "mtl_deploy": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": _versions(),
        "options": {
            "model": options.model,
            "weights": options.weights,
            "trust_pickle": options.trust_pickle,
            "constants": dict(options.constants),
            "opset": options.opset,
            "precisions": list(options.precisions),
            "outputs": options.outputs,
            "samples": options.samples,
        },
        "compared_with": "PyTorch" if loaded.given is None else "the given graph",
        "verification_images": images.description,
        "notes": notes,
    }


def without(options: Options) -> dict[str, Any]:
    """Return what a quick export did not check or make, for the manifest, and warn of it; nothing for a usual one."""
    if not options.unchecked:
        return {}
    text = f"a quick export, for development: {'; '.join(options.unchecked)}; export again without --quick before it is used"
    warnings.warn(text, UncheckedWarning, stacklevel=2)
    return {"unchecked": list(options.unchecked)}


def _versions() -> dict[str, str]:
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    return {name: installed[name] for name in _LIBRARIES if name in installed}
