"""The example that measures the border: what it prints is a table of frames that equal Pillow's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/source_in_graph.py"


@pytest.mark.extended
def test_it_prints_frames_that_equal_pillows() -> None:
    command = [sys.executable, str(EXAMPLE), "--image-size", "32x48", "--layout", "gray", "--rounds", "1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    _, _, *rows = found.stdout.splitlines()
    sizes = [row.split()[0] for row in rows]
    assert sizes == ["480x640", "720x1280", "1080x1920"]
    for row in rows:
        _, layout, difference, work, unit, *_ = row.split()
        assert (layout, difference, unit) == ("gray", "0", "G")
        assert float(work) > 0
