"""Which versions of its dependencies the project works with, and where they can be had.

    python -m tests.dependencies install    # every install line of the pages, resolved
    python -m tests.dependencies resolve    # every extra on every supported Python, wheels only
    python -m tests.dependencies versions   # tests with the lowest and with the newest versions

``install`` and ``resolve`` ask pip what it would install, and install nothing. That is ``pip download`` without the download: the
same resolver and the same options, but the libraries of CUDA are gigabytes. Run them where the project itself is installed
(``make test-install``, ``make test-resolve``, ``make test-lowest`` see to that).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
NO_WHEELS = {
    "pycuda": "is published as source only, and builds with a CUDA toolkit",
    "tensorrt": "is a placeholder that fetches the wheels from NVIDIA's own server when it is installed",
    "tensorrt-cu12": "is a placeholder that fetches the wheels from NVIDIA's own server when it is installed",
}
"""Packages without wheels on an index, and why; the extras have their names."""
NEWER = {
    "tests/calibration/fp16/test_typing.py::test_results_are_close_at_every_opset_and_batch[24]": "opset 21 is the most",
    "tests/calibration/observe/test_statistics.py::test_ranges_are_those_of_the_tensors[24]": "opset 21 is the most",
    "tests/calibration/fp16/test_typing.py::test_attention_stays_in_fp32_since_nobody_sees_its_products": "onnx 1.17 has opset 22",
    "tests/runtime/test_model.py::test_a_subset_of_tasks_is_computed_alone": "reads a profile as later ONNX Runtimes write it",
    "tests/runtime/kinds/test_rotation.py::test_nine_values_become_the_nearest_rotation": "compares with a later scipy",
}
"""Tests that the lowest versions cannot pass, and why: of ONNX Runtime 1.20, onnx 1.17 and the scipy that fits their numpy."""
ABSENT = {
    "tests/runtime/doctor/test_doctor.py::test_the_report_is_one_screen_and_names_what_is_installed": "names torch as installed",
    "tests/runtime/test_cli.py::test_what_cannot_be_shown_is_said_before_anything_is_predicted": "one case needs OpenCV",
}
"""Tests that need what neither the lowest nor the newest environment has."""
PARTS = {"tensorrt-rtx-cu13": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")}
"""Packages that are source without code: the wheels that they bring are looked for instead."""
GROUPS = {
    "runtime": (
        ("runtime", "images", "openvino", "sign"),
        "tests/runtime",
        r"mtl_deploy\.(?:export|calibration)|split_bundle",
    ),
    "calibration": (("runtime", "calibration", "sign"), "tests/calibration", r"mtl_deploy\.export"),
}
"""What runs on devices: the extras that are installed, the folder of tests, and the rooms that the tests must do without."""
TOOLS = (
    *("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "jsonschema>=4.18", "setuptools>=77"),
    *("onnx>=1.17", "scikit-learn>=1.3", "pycocotools>=2.0.8", "cuda-bindings>=12.8,<14"),
)
"""What the tests themselves need, in any version that fits."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("install", "resolve"):
        commands.add_parser(name)
    versions = commands.add_parser("versions")
    versions.add_argument("--folder", type=Path, default=ROOT / ".lowest", help="where environments go")
    versions.add_argument("--which", choices=("lowest", "newest"), action="append", help="default: both")
    versions.add_argument("--group", choices=GROUPS, action="append", help="default: all")
    versions.add_argument("tests", nargs="*", help="what pytest runs (default: the group's tests)")
    asked = parser.parse_args(arguments)
    if asked.command == "install":
        return _failed(install_lines())
    if asked.command == "resolve":
        return _failed(resolutions())
    codes = [
        run_versions(which, group, asked.folder / f"{group}-{which}", asked.tests)
        for which in asked.which or ("lowest", "newest")
        for group in asked.group or GROUPS
    ]
    return max(codes)


def _failed(lines: Iterable[tuple[bool, str]]) -> int:
    good = True
    for fine, line in lines:
        print(line, flush=True)
        good &= fine
    return 0 if good else 1


def requirements(extra: str, python: str | None = None) -> list[Requirement]:
    """Return what an extra brings, with what the extras that it names bring; markers are decided for a Python, such as ``3.10``."""
    environment = {"extra": extra} | ({} if python is None else {"python_version": python})
    found: list[Requirement] = []
    for text in requires("mtl-deploy") or []:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate(environment):
            continue
        if one.name == "mtl-deploy":
            found += [each for inner in sorted(one.extras) for each in requirements(inner, python)]
        else:
            one.marker = None
            found.append(one)
    return list({str(each): each for each in found}.values())


def extras() -> list[str]:
    """Return the names of all extras."""
    markers = [Requirement(text).marker for text in requires("mtl-deploy") or []]
    return sorted({name for marker in markers for name in re.findall(r"extra == ['\"]([\w-]+)['\"]", str(marker))})


def lowest(requirement: Requirement) -> Requirement:
    """Return the requirement of the lowest version that another allows; one without a lower bound as it is."""
    bounds = _bounds(requirement)
    if not bounds:
        return requirement
    inner = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return Requirement(f"{requirement.name}{inner}=={max(bounds)}")


def strictest(given: Iterable[Requirement]) -> list[Requirement]:
    """Return one requirement for each package: of several, the one with the highest lower bound."""
    by_name: dict[str, list[Requirement]] = {}
    for one in given:
        by_name.setdefault(one.name, []).append(one)
    return [max(several, key=lambda one: max(_bounds(one), default=Version("0"))) for several in by_name.values()]


def _bounds(requirement: Requirement) -> list[Version]:
    return [Version(each.version) for each in requirement.specifier if each.operator in (">=", "~=", "==")]


def pip(*words: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip in the repository's folder, for another environment if its Python is given."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *(["--python", python] if python else []),
        *words,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def would_install(words: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return what pip would install beside nothing, version by name, and why it cannot, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report), *words)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            return {}, (errors or done.stderr.splitlines() or ["pip said nothing"])[-1].removeprefix("ERROR: ")
        entries = json.loads(report.read_text(encoding="utf-8"))["install"]
        return {each["metadata"]["name"]: each["metadata"]["version"] for each in entries}, ""


def _said(found: dict[str, str], named: Iterable[Requirement]) -> str:
    named = [Requirement(name) for one in named for name in PARTS.get(one.name, (str(one),))]
    by_name = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}
    wanted = dict.fromkeys(re.sub(r"[-_.]+", "-", each.name).lower() for each in named)
    return ", ".join(f"{name} {by_name[name]}" for name in wanted if name in by_name)


def install_lines() -> Iterator[tuple[bool, str]]:
    """Resolve each different install line of the pages; a wheel that a line names is built for it."""
    from tests.test_install_lines import OURS, documented

    wheels = sorted((ROOT / "dist").glob("*.whl"))
    done: set[tuple[str, ...]] = set()
    for where, words in documented().items():
        if tuple(words) in done:
            continue
        done.add(tuple(words))
        line = f"{where}: pip install {' '.join(words)}"
        asked_for = re.findall(r"[\w-]+", " ".join(words))
        if without := next((name for name in NO_WHEELS if name in asked_for), None):
            yield True, f"left out  {line}: {without} {NO_WHEELS[without]}"
            continue
        given = []
        for word in words:
            match = OURS.fullmatch(word)
            if match is not None and ".whl" in word:
                if not wheels:
                    yield False, f"FAILED    {line}: dist/ has no wheel: make wheel"
                    return
                word = f"{wheels[-1]}[{match[1]}]"
            given.append(word)
        found, why = would_install(given)
        yield not why, f"FAILED    {line}: {why}" if why else f"resolved  {line}: {len(found)} packages"


def resolutions() -> Iterator[tuple[bool, str]]:
    """Resolve all extras at once on each Python, with wheels for this platform only; where that fails, one by one, to say which.

    Markers of the project's own requirements are decided for that Python; pip decides those of their dependencies for the Python
    that it runs on, which makes a difference for backports alone.
    """
    whole = [extra for extra in extras() if extra not in NO_WHEELS]
    for python in PYTHONS:
        needed = {extra: [one for one in requirements(extra, python) if one.name not in NO_WHEELS] for extra in whole}
        found, why = _wheels(python, [one for each in needed.values() for one in each])
        for extra, named in needed.items():
            where = f"Python {python}  [{extra}]"
            if why:
                single, reason = _wheels(python, named)
                yield (
                    not reason,
                    f"FAILED    {where}: {reason}" if reason else f"resolved  {where}: {_said(single, named)}",
                )
            else:
                yield True, f"resolved  {where}: {_said(found, named)}"
        if not why:
            yield True, f"resolved  Python {python}, all of these at once: {len(found)} packages"
    for extra, reason in NO_WHEELS.items():
        yield True, f"left out  [{extra}]: {reason}"


def _wheels(python: str, named: Iterable[Requirement]) -> tuple[dict[str, str], str]:
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--only-binary=:all:", "--python-version", python, "--target", folder]
        names = [name for one in named for name in PARTS.get(one.name, (str(one),))]
        return would_install([*asked, *dict.fromkeys(names)])


_TRAINS = r"^\s*(?:import|from) torch|^import cv2|\b(?:article_\w+|export_file|hard_network\w*|deploy_digits)\b"
"""What a test file holds that needs torch: an import of it, or a fixture that trains or exports."""


def without_torch(group: str) -> list[str]:
    """Return a group's test files that need neither torch nor a room that is not installed; `make test` runs the others."""
    _, folder, rooms = GROUPS[group]
    needs = re.compile(f"{_TRAINS}|{rooms}", re.MULTILINE)
    files = sorted((ROOT / folder).rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if not needs.search(file.read_text(encoding="utf-8"))]


def run_versions(which: str, group: str, environment: Path, tests: Sequence[str]) -> int:
    """Run a group's tests that need no torch, with the lowest or the newest versions; return pytest's exit code."""
    needed = strictest(one for extra in GROUPS[group][0] for one in requirements(extra))
    chosen = [lowest(one) if which == "lowest" else one for one in needed]
    python = str(environment / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], check=True)
    done = pip("install", "--quiet", "--upgrade", "--only-binary=:all:", *map(str, chosen), *TOOLS, python=python)
    if done.returncode == 0:
        done = pip("install", "--quiet", "--no-deps", "--editable", ".", python=python)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    listed = json.loads(pip("list", "--format", "json", python=python).stdout)
    held = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in listed}
    names = sorted({re.sub(r"[-_.]+", "-", one.name).lower() for one in needed})
    print(
        f"{group}, {which}: Python {sys.version.split()[0]}, " + ", ".join(f"{name} {held[name]}" for name in names),
        flush=True,
    )
    asked = list(tests) or without_torch(group)
    command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not extended", *asked]
    left_out = {**ABSENT, **(NEWER if which == "lowest" else {})}
    for test, why in left_out.items():
        if test.startswith(GROUPS[group][1]):
            print(f"left out  {test}: {why}", flush=True)
            command += ["--deselect", test]
    return subprocess.run(command, cwd=ROOT, env=_clean(), check=False).returncode


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


if __name__ == "__main__":
    sys.exit(main())
