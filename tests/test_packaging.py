"""The distributions as users get them: a wheel built from the sdist, installed where there is no torch and no onnx."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtl_deploy

ROOT = Path(__file__).parents[1]
ROOMS = ("bench", "calibration", "export", "runtime")
EDGE_LIBRARIES = (
    "numpy",
    "numpy.libs",
    "onnxruntime",
    "PIL",
    "pillow.libs",
)  # what an edge device has beside the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    source.mkdir()
    for name in ("package", *ROOMS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def edge(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel, numpy, ONNX Runtime and Pillow, and nothing else."""
    environment = tmp_path_factory.mktemp("edge") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--no-cache-dir", str(wheel)], check=True)
    ours = next(environment.glob("lib/python*/site-packages"))
    theirs = Path(sysconfig.get_path("platlib"))
    for name in EDGE_LIBRARIES:
        if (theirs / name).exists():
            (ours / name).symlink_to(theirs / name)
    return environment / "bin"


def test_the_wheel_holds_all_rooms_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    ours = {name for name in names if name.endswith((".py", "py.typed"))}
    expected = {
        f"mtl_deploy/{room}/{path.relative_to(ROOT / room)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")
    }
    assert ours == expected | {"mtl_deploy/__init__.py", "mtl_deploy/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    data = {f"mtl_deploy/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.json")}
    assert len(data) > 5
    assert data <= set(names)


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    assert wheel.name.startswith(f"mtl_deploy-{mtl_deploy.__version__}-")
    assert metadata("mtl-deploy")["Version"] == mtl_deploy.__version__
    sources = [path for folder in ("package", *ROOMS) for path in (ROOT / folder).glob("**/*.py")]
    written = [path for path in sources if f'"{mtl_deploy.__version__}"' in path.read_text(encoding="utf-8")]
    assert written == [ROOT / "package" / "mtl_deploy" / "__init__.py"]


def test_an_edge_device_imports_predicts_and_measures(
    edge: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = make_bundle()
    picture = tmp_path / "face.png"
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(picture)
    for missing in ("torch", "onnx"):
        result = subprocess.run([edge / "python", "-c", f"import {missing}"], capture_output=True, check=False)
        assert result.returncode != 0, f"the environment is not clean: it has {missing}"

    result = subprocess.run([edge / "mtl-infer", bundle, picture, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["predictions"][0]["tasks"]["age"]["value"] == pytest.approx(
        1 + 100 * 200 / 255, rel=1e-4
    )

    command = [edge / "mtl-bench", bundle, "--quick", "--duration", "0.5", "--json", "-"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["batches"][0]["contestants"]["shared"]["memory_bytes"]["peak"] > 0


def test_an_edge_device_is_examined(edge: Path, make_bundle: Callable[..., Path]) -> None:
    command = [edge / "mtl-doctor", make_bundle(), "--json", "--run"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {one["path"]: one["runs"] for one in found["bundle"]["artifacts"]}["fp32.onnx"]
    assert found["libraries"]["commands"]["mtl-infer"]["missing"] == []
    assert found["libraries"]["commands"]["mtl-export"]["missing"] == ["torch", "onnx", "onnxscript"]


def test_an_edge_device_is_told_what_exporting_needs(edge: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    result = subprocess.run([edge / "mtl-export", tmp_path / "model.pt"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: mtl-export needs torch, which is not installed: pip install 'mtl-deploy[export]'"
    ]


def test_no_extra_brings_both_onnxruntimes() -> None:
    """They share one import name and break each other."""
    extras: dict[str, set[str]] = {}
    for requirement in requires("mtl-deploy") or []:
        name, _, marker = requirement.partition(";")
        if found := re.search(r"extra == ['\"]([\w-]+)['\"]", marker):
            extras.setdefault(found[1], set()).add(name.strip())

    def packages(extra: str) -> set[str]:
        found = set()
        for requirement in extras.get(extra, set()):
            if nested := re.fullmatch(r"mtl-deploy\[([\w,-]+)\]", requirement):
                found |= set().union(*(packages(name) for name in nested[1].split(",")))
            found.add(re.split(r"[<>=!~\s\[]", requirement)[0])
        return found

    assert {"runtime", "runtime-gpu", "export", "demo", "dev"} <= set(extras)
    for extra in extras:
        assert not {"onnxruntime", "onnxruntime-gpu"} <= packages(extra), extra
    assert {"onnxruntime"} <= packages("runtime") <= {"onnxruntime", "pillow"}


def test_commands_are_installed() -> None:
    scripts = {entry.name for entry in entry_points(group="console_scripts") if entry.value.startswith("mtl_deploy.")}
    assert scripts == {"mtl-export", "mtl-calibrate", "mtl-infer", "mtl-bench", "mtl-doctor"}


def test_the_rooms_are_found_once() -> None:
    for room in ROOMS:
        spec = importlib.util.find_spec(f"mtl_deploy.{room}")
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).resolve() == ROOT / room / "__init__.py"
