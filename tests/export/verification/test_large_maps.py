"""Large maps are run and compared a few images at a time, and the verdict is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.calibration.graph import sizes
from mtl_deploy.export.verification.expected import Expected
from mtl_deploy.export.verification.verify import judge
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from tests.networks.dense_bundle import dense_graph, dense_signature


class Watched(OnnxRuntimeBackend):
    """Notes the size of each batch."""

    def run(self, inputs: Any, outputs: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.seen = [*getattr(self, "seen", []), len(inputs[INPUT_NAME])]
        return super().run(inputs, outputs, *arguments, **options)


def test_large_maps_are_judged_as_small_ones_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = dense_signature(outputs="logits")
    graph = dense_graph(signature)
    images = np.random.default_rng(0).integers(0, 256, (14, 36, 52, 3), dtype=np.uint8)
    exact = OnnxRuntimeBackend(lambda: graph, providers=["CPU"], threads=1)
    names = [task.name for task in signature.tasks]
    raw = exact.run({INPUT_NAME: images}, names)
    raw["depth"] = raw["depth"].reshape(14, 1, 9, 13) * np.float32(1 + 1e-5)  # errors to compare
    expected = Expected(signature, raw)

    def judged() -> tuple[list[int], list[dict[str, Any]]]:
        backend = Watched(lambda: graph, providers=["CPU"], threads=1)
        found = judge("fp32.onnx", backend, signature, [(images, expected)], 1e-3, None, "fp32")
        return backend.seen, [one.row.to_dict() for one in found]

    batches, rows = judged()
    assert batches == [1, 3, 8, 2]
    monkeypatch.setattr(sizes, "LARGEST", 2 * 4 * 5 * 36 * 52)  # two images of five classes
    few, same = judged()
    assert few == [1, 3, *[2] * 5]
    for row, other in zip(rows, same, strict=True):
        for key, value in row.items():
            assert other[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)
    assert any(row["max_error"] > 0 for row in rows)
