"""Runs on the emulated processor, and on this one: what a device has, numpy and the runtime, answers some images.

python answers.py BACKEND IMAGES OUT BUNDLE ...

Writes ``OUT/BUNDLE.npz`` with ``pixels``, what the runtime makes of the image files, and ``PRECISION/TASK``. Prints a line of JSON:
what the processor and the library are, and by ``BUNDLE, PRECISION`` why a graph ``failed``.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.errors import MtlError
from mtl_deploy.runtime.images.loading import prepare_all

PRECISIONS = ("fp32", "int8-cpu", "int8")
_HWCAP, _DOT_PRODUCT = 16, 1 << 20  # of getauxval; Linux's HWCAP_ASIMDDP
_HWCAP2, _MATRIX_PRODUCT = 26, 1 << 13  # HWCAP2_I8MM


def main() -> None:
    backend, images, out, *bundles = sys.argv[1:]
    warnings.simplefilter("ignore")
    details, failed = "", {}
    for path in map(Path, bundles):
        bundle = open_bundle(path)
        files = sorted(map(str, Path(images).iterdir()))
        batches = [
            prepare_all(file, bundle.manifest.signature.preprocessing).batches[0][0].astype(np.uint8) for file in files
        ]
        found: dict[str, Any] = {"pixels": np.concatenate(batches)}
        for artifact in graphs(bundle):
            precision = Path(artifact).stem
            only: dict[str, Any] = {"runtime_cache": False} if backend == "openvino" else {}
            try:
                with load(path / artifact, backend=backend, threads=1, **only) as model:
                    details = details or model.backend.details
                    answers = [{task: np.array(value) for task, value in model(batch).items()} for batch in batches]
            except MtlError as error:
                failed[f"{path.stem}, {precision}"] = str(error).replace(f"{path}/", "")
                continue
            for task in answers[0]:
                found[f"{precision}/{task}"] = np.concatenate([one[task] for one in answers])
        np.savez(Path(out) / f"{path.stem}.npz", **found)
    told = {"machine": platform.machine(), "details": details, "arithmetic": arithmetic(), "failed": failed}
    print(json.dumps(told))


def graphs(bundle: Bundle) -> list[str]:
    """Return the files of the shared graphs that processors run."""
    return [
        artifact.path
        for precision in PRECISIONS
        for artifact in bundle.manifest.artifacts
        if (artifact.role, artifact.backend, artifact.precision) == ("shared", "onnxruntime", precision)
    ]


def arithmetic() -> str:
    """Say which integer instructions the kernel reports on ARM."""
    if platform.machine() != "aarch64":
        return ""
    value = ctypes.CDLL(None).getauxval
    value.restype, value.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    words = ["dot products"] if value(_HWCAP) & _DOT_PRODUCT else []
    words += ["matrix products"] if value(_HWCAP2) & _MATRIX_PRODUCT else []
    return ", ".join(words) or "neither dot nor matrix products"


if __name__ == "__main__":
    main()
