"""Results of mtl-bench as they are compared: samples with a known centre that vary as real ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def result(
    seed: int, *, ms: dict[str, float], batches: tuple[int, ...] = (1,), processes: int = 4, **settings: Any
) -> dict[str, Any]:
    """Return a result whose processes, rounds and calls vary as real ones do."""
    rng = np.random.default_rng(seed)

    def samples(centre: float) -> list[list[list[float]]]:
        found = []
        for _ in range(processes):
            process = centre * (1 + 0.005 * rng.standard_normal())
            rounds = [process * (1 + 0.01 * rng.standard_normal()) for _ in range(8)]
            found.append([list(one * (1 + 0.02 * rng.standard_normal(20))) for one in rounds])
        return found

    return {
        "schema": "mtl-bench",
        "schema_version": 2,
        "bundle": {
            "path": "model.mtl",
            "name": "model",
            "tasks": ["age"],
            "kinds": ["regression"],
            "sizes": [1],
            "input": [8, 8],
            "channels": 3,
            "checkpoint_sha256": 64 * "a",
        },
        "precision": "fp32",
        "backend": "onnxruntime",
        "details": "ONNX Runtime",
        "settings": {"threads": 2, "spinning": False, "cuda_graphs": True, "duration_s": 10.0} | settings,
        "environment": {"processor": "some", "usable_cores": 2, "gpu": None},
        "contestants": {name: {"title": name} for name in ms},
        "batches": [
            {
                "batch": size,
                "contestants": {name: {"samples_ms": samples(size * centre)} for name, centre in ms.items()},
                "warnings": [],
            }
            for size in batches
        ],
        "warnings": [],
    }


def write(folder: Path, name: str, document: Any) -> str:
    file = folder / name
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)
