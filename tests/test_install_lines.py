"""Every install line of the pages, and every one that an error advises, is one that pip takes before there is a release."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement

from mtl_deploy.runtime.backends.tensorrt.library import EXTRAS
from tests.wheel_lines import DEVICES, lines

ROOT = Path(__file__).parents[1]
ROOMS = ("bench", "calibration", "export", "runtime")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.py")),
]
KNOWN = set(metadata("mtl-deploy").get_all("Provides-Extra") or [])
OURS = re.compile(r"(?:mtl-deploy|\.|[\w./-]+\.whl)(?:\[([\w,-]+)\])?")


def documented() -> dict[str, list[str]]:
    """Return what each install line of the pages installs, by page and line."""
    found = {}
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for given in re.findall(r"pip install ([^`#\n]+)", line):
                words = shlex.split(given)
                found[f"{page.relative_to(ROOT)}:{number}"] = [word for word in words if not word.startswith("-")]
    return found


def advised() -> dict[str, list[str]]:
    """Return what the rooms' messages advise to install, by file and line."""
    found: dict[str, list[str]] = {}
    for file in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                text = node.value
            words = re.findall(r"pip install '?([\w.-]+(?:\[[^]]*\])?[^' );,]*)", text)
            words += re.findall(r"(?<![\w.-])(mtl-deploy\[[^]]*\])", text)
            if words := [word for word in words if "\0" not in word]:
                found[f"{file.relative_to(ROOT)}:{node.lineno}"] = words
    found["EXTRAS"] = [shlex.split(line)[-1] for line in EXTRAS.values()]
    return found


def check(where: str, words: list[str]) -> set[str]:
    """Check the form of what a line installs, and return what of it is this project."""
    ours = set()
    for word in words:
        if match := OURS.fullmatch(word):
            extras = set((match[1] or "").split(",")) - {""}
            assert extras <= KNOWN, f"{where}: {word}: no extra {extras - KNOWN}"
            ours.add(word)
            continue
        try:
            name = Requirement(word).name
        except InvalidRequirement as error:
            raise AssertionError(f"{where}: {word}: {error}") from error
        assert name != "mtl-deploy", (
            f"{where}: {word}: write '.[extra]', a wheel, or 'mtl-deploy[extra]' where it is installed"
        )
    return ours


def pip(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def dry_run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return pip(folder, "install", "--dry-run", "--no-deps", "--no-build-isolation", "--no-index", *words)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: pip writes beside them."""
    folder = tmp_path_factory.mktemp("checkout")
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("package", *ROOMS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_the_pages_install_lines_are_pips(checkout: Path) -> None:
    lines = documented()
    assert len(lines) >= 10
    ours = set()
    for where, words in lines.items():
        assert words, f"{where}: installs nothing"
        found = check(where, words)
        assert not {word for word in found if word.startswith("mtl-deploy")}, f"{where}: needs the package on an index"
        ours |= found
    assert ".[export]" in ours
    (make,) = re.findall(r"`pip (wheel [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    built = pip(checkout, *shlex.split(make), "--no-build-isolation", "--no-index")
    assert built.returncode == 0, built.stderr
    wheels = {word for word in ours if ".whl" in word}
    for words in (ours - wheels, wheels):
        result = dry_run(checkout, "--force-reinstall", *sorted(words))  # the tests' own environment has it already
        assert result.returncode == 0, result.stderr
        assert "Would install mtl-deploy" in result.stdout


def test_what_errors_advise_is_pips_where_the_package_is_installed(tmp_path: Path) -> None:
    """The extras of an installed package need no index for the package itself."""
    lines = advised()
    assert len(lines) >= 15
    ours = {word for where, words in lines.items() for word in check(where, words)}
    assert {"mtl-deploy[export]", "mtl-deploy[images]", "mtl-deploy[tensorrt]", "mtl-deploy[tensorrt-rtx]"} <= ours
    result = dry_run(tmp_path, *sorted(ours))
    assert result.returncode == 0, result.stderr
    assert "already satisfied: mtl-deploy" in result.stdout


def test_the_lines_that_make_wheel_prints_are_pips() -> None:
    """And the README names the same extras for the same devices."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line, (device, extra, _) in zip(lines("mtl_deploy-1-py3-none-any.whl"), DEVICES, strict=True):
        command, _, comment = line.partition("  #")
        assert comment.strip() == device
        assert check(device, shlex.split(command)[2:]) == {f"mtl_deploy-1-py3-none-any.whl{extra}"}
        assert f"`{extra}`" in readme.partition("## On a device")[2] or not extra


@pytest.mark.parametrize("words", [["mtl-deploy[export] @ ."], ["mtl-deploy[exprot]"], [".[exprot]"], ["numpy=>1"]])
def test_lines_that_pip_refuses_are_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        check("a line", words)
