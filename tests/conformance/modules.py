"""The real modules to compare with: which there are, where they come from, and how one is asked in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".conformance"  # git ignores it; `make clean` removes it


@dataclass(frozen=True)
class Module:
    """A release of TensorRT, or of cuda-bindings.

    Attributes:
        title: for people.
        name: the Python module; empty for cuda-bindings.
        wheels: to get from the package index; empty: it is installed.
        stubs: the version in the names of the libraries that stand in for TensorRT's own; None: they are real.
        runs_only: whether it has no builder.
    """

    title: str
    name: str
    wheels: tuple[str, ...] = ()
    stubs: int | None = None
    runs_only: bool = False


_CU12, _CU13 = "tensorrt-cu12-bindings", "tensorrt-cu13-bindings"
RTX = Module("RTX 1.7", "tensorrt_rtx")
LEAN = Module(
    "lean 11.4",
    "tensorrt_lean_bindings",
    ("tensorrt-lean-cu13-bindings==11.4.0.106", "tensorrt-lean-cu13-libs==11.4.0.106"),
    runs_only=True,
)
TENSORRT = (
    RTX,
    Module("8.6.1", "tensorrt_bindings", ("tensorrt-bindings==8.6.1",), 8),
    Module("10.0.1", "tensorrt_bindings", (f"{_CU12}==10.0.1",), 10),
    Module("10.3.0", "tensorrt_bindings", (f"{_CU12}==10.3.0",), 10),
    Module("10.16.1", "tensorrt_bindings", (f"{_CU12}==10.16.1.11",), 10),
    Module("11.4.0", "tensorrt_bindings", (f"{_CU13}==11.4.0.106",), 11),
    LEAN,
)
BINDINGS = (
    Module("cuda-bindings here", ""),
    Module("cuda-bindings 12.8", "", ("cuda-bindings==12.8.0",)),
    Module("cuda-bindings 12.9", "", ("cuda-bindings==12.9.10",)),
    Module("cuda-bindings 13.5", "", ("cuda-bindings==13.5.0",)),
)


def parameters(modules: tuple[Module, ...]) -> list[Any]:
    """Return them as parameters of a test: those that must be fetched run with the extended tests."""
    marks = {True: [pytest.mark.extended], False: []}
    return [pytest.param(each, id=each.title, marks=marks[bool(each.wheels)]) for each in modules]


def ask(script: str, module: Module, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run a script in a process of its own, where the module can be imported, and return the JSON that it printed last.

    Skips where the module, or a compiler that it needs, cannot be had.
    """
    result = run(script, module, *arguments, environment=environment)
    assert result.returncode == 0, f"exit code {result.returncode}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return json.loads(result.stdout.splitlines()[-1])


def run(
    script: str, module: Module, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, where the module can be imported."""
    folders = [str(folder) for folder in _folders(module)]
    libraries = [str(file) for file in _libraries(module)]
    package = HERE.parents[1] / "package"
    path = [*folders, *([str(package)] if package.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(HERE / script), module.name, json.dumps(libraries), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def libcuda() -> Path:
    """Return the folder of the small libcuda.so.1, compiled; skips where there is no compiler."""
    return _compile("libcuda.c", "libcuda", "libcuda.so.1").parent


def _folders(module: Module) -> Iterator[Path]:
    if not module.wheels:
        pytest.importorskip(module.name or "cuda.bindings", exc_type=ImportError)
        return
    for wheel in module.wheels:
        yield fetched(wheel)


def _libraries(module: Module) -> Iterator[Path]:
    """Return the shared libraries to load before the module, in order."""
    if module.stubs is not None:
        for name in ("nvinfer", "nvonnxparser", "nvparsers", "nvinfer_plugin"):
            yield _compile("stubs.c", f"stubs-{module.stubs}", f"lib{name}.so.{module.stubs}")
    elif module.wheels:
        for folder in _folders(module):
            yield from sorted(folder.glob("*_libs/libnvinfer_lean.so.*"))


def fetched(wheel: str) -> Path:
    """Return the folder that a wheel is unpacked in; nothing of it is installed."""
    target = CACHE / f"{wheel}-py{sys.version_info[0]}{sys.version_info[1]}"
    with _alone():
        if not target.is_dir():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            folder = CACHE / "wheels"
            shutil.rmtree(folder, ignore_errors=True)
            command = [*pip, "--only-binary", ":all:", "--dest", str(folder), wheel]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            files = list(folder.glob("*.whl"))
            if found.returncode != 0 or not files:
                reason = [line for line in found.stderr.splitlines() if line.strip()] or ["no pip"]
                pytest.skip(f"{wheel} cannot be had: {reason[-1]}")
            unpacked = folder / "unpacked"
            with zipfile.ZipFile(files[0]) as archive:
                archive.extractall(unpacked)
            unpacked.replace(target)
            shutil.rmtree(folder)
    return target


def _compile(source: str, folder: str, name: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    target = CACHE / folder / name
    with _alone():
        if not target.is_file() or target.stat().st_mtime < (HERE / source).stat().st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            command = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", str(target)]
            subprocess.run([*command, str(HERE / source), "-ldl"], check=True, capture_output=True)
    return target


@contextmanager
def _alone() -> Iterator[None]:
    """Have the cache to oneself: tests run in several processes."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
