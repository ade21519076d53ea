"""No method of this project is further from FP32 than ONNX Runtime's of the same name: the example's own comparison."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hard_networks import Deployed

pytestmark = pytest.mark.extended
EXAMPLE = Path(__file__).parents[3] / "examples" / "int8_methods.py"


@pytest.mark.parametrize("network", ["digits_resnet", "digits_mobile"])
def test_no_method_is_worse_than_its_namesake(network: str, request: pytest.FixtureRequest) -> None:
    deployed: Deployed = request.getfixturevalue(network)
    images = ["--images", str(deployed.folder / "test"), "--samples", "256", "--seeds", "3"]
    command = [sys.executable, str(EXAMPLE), str(deployed.bundle), *images]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.rstrip().endswith("none is worse"), result.stdout + result.stderr
    assert result.returncode == 0
    for method in ("minmax", "percentile", "entropy"):
        assert f"\n{method}" in result.stdout.split("same name")[1]
