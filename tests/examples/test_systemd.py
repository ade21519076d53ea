"""The systemd unit: what systemd itself finds wrong with it, and that its command line and exit code are the command's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mtl_deploy.runtime.cli import _parser
from mtl_deploy.runtime.live.options import play_options

UNIT = Path(__file__).parents[2] / "examples/systemd/mtl-camera.service"


def setting(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return value


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / UNIT.name
    program = shutil.which("true")
    here.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/mtl/bin/mtl-infer", str(program)), encoding="utf-8")
    done = subprocess.run(
        [verify, "verify", "--man=no", str(here)], capture_output=True, text=True, timeout=60, check=False
    )
    mine = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (mine, done.returncode) == ([], 0), done.stderr


def test_its_command_line_is_one_of_mtl_infer() -> None:
    words = shlex.split(setting("ExecStart"))
    assert Path(words[0]).name == "mtl-infer"
    arguments = _parser().parse_args([word.replace("${CAMERA}", "rtsp://10.0.0.7/front") for word in words[1:]])
    options = play_options(arguments, None, None)
    assert (options.reconnect, options.patient, options.stats) == (60.0, True, 60.0)
    assert arguments.output == "-"
    assert arguments.images == ["rtsp://10.0.0.7/front"]
    assert setting("SuccessExitStatus") == str(128 + 15)
    assert setting("Type") == "notify"
