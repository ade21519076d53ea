"""The default export takes networks as a tool is tried first: torchvision's, with fresh weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.extended),  # FP16 costs it too much at first
    ],
)
def test_a_fresh_network_exports_with_most_of_its_work_in_fp16(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("fresh_networks", None)
    import fresh_networks

    row, passed = fresh_networks.export(name, 0, tmp_path)
    assert passed, row
    assert (tmp_path / f"{name}-0.mtl" / "fp16.onnx").is_file()
