"""Two exports of one checkpoint are one bundle, byte for byte, where the time is fixed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from PIL import Image

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, digest, open_bundle
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.dates import VARIABLE, created

NETWORKS = Path(small_networks.__file__).parent
TASKS = ("--task", "age=regression:years", "--task", "gender=binary:male,female", "--task", "race=multiclass")
EPOCH = "1700000000"


def export(checkpoint: Path, target: Path, seed: int, *arguments: str) -> None:
    """Export in a process of its own, whose sets have an order of their own."""
    code = "import sys; from mtl_deploy.export.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {VARIABLE: EPOCH, "PYTHONHASHSEED": str(seed)}
    environment["PYTHONPATH"] = os.pathsep.join([str(NETWORKS), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-c",
        code,
        str(checkpoint),
        "-o",
        str(target),
        "--engine",
        "none",
        "--threads",
        "1",
        "-q",
    ]
    target.parent.mkdir()
    done = subprocess.run(
        [*command, *arguments], cwd=target.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, str]:
    """Return the digests of all files but the measurements, which are times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MEASURED_FILE]
    return {str(path.relative_to(folder)): digest(path) for path in files}


def require_equal(first: Path, second: Path) -> None:
    texts = [(folder / "manifest.json").read_text(encoding="utf-8").splitlines() for folder in (first, second)]
    assert [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]] == []
    assert contents(first) == contents(second)
    assert open_bundle(first).manifest.provenance["created"] == "2023-11-14T22:13:20+00:00"


def test_two_exports_in_two_processes_are_equal_byte_for_byte(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "network.pt"
    torch.save(small_networks.Shared().eval(), checkpoint)
    arguments = ("--trust-pickle", "--image-size", "24x16", *TASKS)
    for seed in (1, 2):
        export(checkpoint, tmp_path / str(seed) / "model.mtl", seed, *arguments)
    require_equal(*(tmp_path / str(seed) / "model.mtl" for seed in (1, 2)))


@pytest.mark.extended
def test_two_exports_with_int8_are_equal_byte_for_byte(article_checkpoint: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((64, 64)).save(
            photos / f"{number}.png"
        )
    for seed in (1, 2):
        arguments = ("--image-size", "64x64", "--calibration-data", str(photos))
        export(article_checkpoint, tmp_path / str(seed) / "model.mtl", seed, *arguments)
    require_equal(*(tmp_path / str(seed) / "model.mtl" for seed in (1, 2)))
    assert (tmp_path / "1" / "model.mtl" / "int8-cpu.onnx").is_file()


def test_the_time_is_now_unless_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(created())).total_seconds()) < 60
    monkeypatch.setenv(VARIABLE, "0")
    assert created() == "1970-01-01T00:00:00+00:00"


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5", "१२", "9" * 30])
def test_a_variable_that_is_no_time_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(OptionError, match="use whole seconds since 1970"):
        created()
