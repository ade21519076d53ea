"""A reader that goes away (``| head -1``) changes no command's exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench.runs import result, write
from tests.pipes import without_a_reader
from tests.runtime.live.servers import Camera

MakeBundle = Callable[..., Path]
COMMANDS = {
    "mtl-export": "mtl_deploy.export.cli",
    "mtl-calibrate": "mtl_deploy.calibration.cli",
    "mtl-infer": "mtl_deploy.runtime.cli",
    "mtl-bench": "mtl_deploy.bench.cli",
}


def command(name: str, *arguments: object) -> list[object]:
    return [
        sys.executable,
        "-c",
        f"import sys; from {COMMANDS[name]} import main; sys.exit(main(sys.argv[1:]))",
        *arguments,
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_errors_keep_their_exit_codes(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    extra = {"mtl-infer": ["image.png"], "mtl-calibrate": ["--calibration-data", missing]}.get(name, [])
    assert without_a_reader(command(name, "--help")).returncode == 0
    assert without_a_reader(command(name, missing, *extra), stderr_too=True).returncode == 2
    assert without_a_reader(command(name, "--no-such-option"), stderr_too=True).returncode == 2


def test_a_comparison_keeps_its_verdict(tmp_path: Path) -> None:
    first = write(tmp_path, "a.json", result(1, ms={"shared": 10.0}))
    second = write(tmp_path, "b.json", result(2, ms={"shared": 15.0}))
    for form in ([], ["--json", "-"]):
        ended = without_a_reader(command("mtl-bench", "compare", first, second, "--fail-above", "5", *form))
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: shared at batch 1 takes")


def test_an_image_that_was_left_out_is_still_told(make_bundle: MakeBundle, tmp_path: Path) -> None:
    for name in ("a", "c"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    files = [tmp_path / f"{name}.png" for name in "abc"]
    bundle = make_bundle()
    for form in ([], ["--json"]):
        ended = without_a_reader(command("mtl-infer", bundle, *files, *form))
        assert ended.returncode == 2
        assert "left out: " in ended.stderr
    assert without_a_reader(command("mtl-infer", bundle, files[0])).returncode == 0


def test_a_camera_that_nobody_reads_ends(make_bundle: MakeBundle) -> None:
    """Nothing else would end it."""
    pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")
    bundle = make_bundle()
    for form in ([], ["--output", "-"]):
        with Camera() as camera:
            ended = without_a_reader(command("mtl-infer", bundle, camera.url, *form))
        assert (ended.returncode, ended.stderr) == (0, "")
