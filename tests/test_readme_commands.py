"""The README's commands, word for word, in what a fresh clone would hold and in fresh virtual environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pages import ROOT, blocks

RUN_BY_CI = {"make test"}
"""Lines that are not run from a test, since they run this one: continuous integration starts with them."""
OUTCOMES = {"mtl-calibrate": (0, 1, 3)}
"""Exit codes other than 0 that are answers: fresh weights need not keep to a budget."""
WRITTEN = (".demo/model.mtl", ".demo/report.html", ".demo/predictions.png", "model.mtl", "weights.mtl")
_ABSENT = ("mtl_deploy", "__editable__", "_editable_", "tensorrt", "openvino", "__pycache__", "pip", "_distutils")


def lines() -> list[str]:
    """Return the README's commands, without comments."""
    code = "".join(block.code for block in blocks(ROOT / "README.md") if block.language == "sh")
    return [line.partition("  #")[0].rstrip() for line in code.splitlines()]


def test_the_readme_shows_these_commands() -> None:
    """A command that is new there needs what it works on, below."""
    assert [line.split()[0] for line in lines()] == [
        *("make", "make"),
        *("pip", "mtl-export", "mtl-infer", "mtl-bench"),
        *("mtl-export", "mtl-calibrate"),
        *("make", "pip"),
    ]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What ``git clone`` would bring once everything is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("these sources are no git checkout, so that there is nothing to clone")
    folder = tmp_path / "clone"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """This environment's libraries without the project, so that pip finds gigabytes of dependencies satisfied."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(path).iterdir():
            if not entry.name.startswith(_ABSENT) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


def environment(python: Path, libraries: Path | None) -> dict[str, str]:
    """Return the variables of a shell in which an environment is activated."""
    made = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))}
    made["PATH"] = f"{python}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{made['PATH']}"
    if libraries is not None:
        made |= {
            "PYTHONPATH": str(libraries),
            "PIP_NO_BUILD_ISOLATION": "0",
        }  # 0: do not isolate; setuptools is among them
    return made


def run(line: str, folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode in OUTCOMES.get(line.split()[0], (0,)), f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def give(folder: Path, article_state: dict[str, Any]) -> None:
    """Write what the README calls the reader's own: checkpoints, code, tasks and pictures."""
    import torch

    torch.save(article_state, folder / "model.pt")
    random = np.random.default_rng(0)
    for name, number in (("validation", 32), ("photos", 60)):
        (folder / name).mkdir()
        for index in range(number):
            small = random.integers(0, 256, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(small).resize((320, 256)).save(folder / name / f"{index}.jpg")
    shutil.copy(folder / "photos" / "0.jpg", folder / "face.jpg")
    rows = [f"{index}.jpg,{20 + index},{'female' if index % 2 else 'male'}" for index in range(60)]
    (folder / "labels.csv").write_text("\n".join(["file,age,gender", *rows]) + "\n", encoding="utf-8")
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    (folder / "mypackage" / "networks.py").write_text(
        "from torch import nn\n\n\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))\n",
        encoding="utf-8",
    )
    (folder / "tasks.toml").write_text('[[task]]\nname = "pose"\nkind = "multiclass"\n', encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        from mypackage.networks import make  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    torch.manual_seed(0)
    torch.save(make().state_dict(), folder / "weights.pt")


@pytest.mark.extended
def test_every_command_of_the_readme_runs_in_a_fresh_clone(
    clone: Path, libraries: Path, article_state: dict[str, Any], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", clone / ".venv"], check=True)
    give(clone, article_state)
    activated = environment(clone / ".venv" / "bin", libraries)
    for line in lines():
        if line in RUN_BY_CI or ".whl" in line:
            continue
        printed = run(line, clone, activated)
        if line == "make wheel":
            assert "pip install 'mtl_deploy-" in printed
    for name in WRITTEN:
        assert (clone / name).exists(), name

    device = tmp_path / "device"  # where nothing is installed; what it needs comes from an index
    subprocess.run([sys.executable, "-m", "venv", device], check=True)
    (wheel,) = (clone / "dist").glob("*.whl")
    shutil.copy(wheel, device)
    shutil.copytree(clone / "model.mtl", device / "model.mtl")
    shutil.copy(clone / "face.jpg", device)
    there = environment(device / "bin", None)
    (install,) = (line for line in lines() if ".whl" in line)
    run(install, device, there)
    assert "years" in run("mtl-infer model.mtl face.jpg", device, there)
