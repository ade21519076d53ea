"""The README's and the docs' commands and code are real."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ROOMS = {
    "mtl-export": "export",
    "mtl-calibrate": "calibration",
    "mtl-infer": "runtime",
    "mtl-bench": "bench",
    "mtl-doctor": "runtime.doctor",
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@lru_cache(maxsize=32)
def usage_of(room: str, subcommand: str) -> str:
    """Return what a command, or its subcommand, prints with ``--help``."""
    words = [subcommand, "--help"] if subcommand else ["--help"]
    code = f"from mtl_deploy.{room}.cli import main; main({words!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text(page)):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    whole = re.sub(r" *\\\n *", " ", text(page))  # commands that go on in the next line
    shown = re.findall(
        r"^(?: {4})?(mtl-(?:export|calibrate|infer|bench|doctor) .+?)(?:  +#.*)?$", whole, flags=re.MULTILINE
    )
    for line in shown:
        command, *words = shlex.split(re.sub(r"\[|\]|\.\.\.", " ", line))
        room = ROOMS[command]
        subcommand = words[0] if words and words[0] in ("compare", "report") else ""
        usage = usage_of(room, subcommand)
        for option in (word.partition("=")[0] for word in words if word.startswith("-") and word != "-"):
            assert re.search(rf"(^|[\s,\[]){re.escape(option)}[\s,\]]", usage), f"{option} in {line!r}"


def test_the_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(
            r"^make ([a-z-]+)(?=  )|^    make ([a-z-]+)$|`make ([a-z-]+)`", text(page), flags=re.MULTILINE
        )
    }
    assert {name for names in named for name in names if name} <= targets


def test_the_five_lines_of_embedding_run(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text(ROOT / "README.md"), flags=re.DOTALL)
    make_bundle(tmp_path / "model.mtl")
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(tmp_path / "face.jpg")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("1 years")


def test_the_embedding_example_runs(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(tmp_path / "photo.png")
    command = [sys.executable, ROOT / "examples" / "embed.py", make_bundle(), tmp_path / "photo.png"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["age", "gender", "race"]


def test_the_overhead_example_prints_its_figures(make_bundle: Callable[..., Path]) -> None:
    command = [sys.executable, ROOT / "examples" / "runtime_overhead.py", make_bundle()]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"added, median of \d+ pairs: -?[\d.]+ microseconds", result.stdout)
    assert re.search(r"1280x720 +[\d.]+ +-?[\d.]+ +[\d.]+ +[\d.]+", result.stdout)
    assert "mtl_deploy.runtime" in result.stdout


def test_the_runtime_page_shows_what_the_overhead_example_prints() -> None:
    assert "added, median of" in text(ROOT / "docs" / "runtime.md")


def test_the_articles_example_exports_at_any_depth_and_shows_its_half_precision(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "article.py", "--out", tmp_path, "--depth", "18"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"ResNet-18 to 8 verified graphs: \d+ s, at most [\d.]+ GB of memory", result.stdout)

    command = [sys.executable, ROOT / "examples" / "half_precision.py", tmp_path / "model.mtl"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"32 images: running [\d.]+ s, observing [\d.]+ s; typing [\d.]+ s", result.stdout)


def test_pages_speak_of_the_project_alone() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        assert not re.search(r"/work/|/root/|pypi\.org|localhost", text(page)), page.name


def test_the_int8_example_times_the_graphs_of_a_bundle(article_bundle: Path) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, ROOT / "examples" / "int8_paths.py", article_bundle, "--rounds", "2", "--threads", "1"]
    result = subprocess.run([*command, "--kernels"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for graph in ("int8-cpu", "quantize_static"):
        row = rf"^{article_bundle.stem} +{graph} +ONNX Runtime +\d+\.\d\d +\d+\.\d+, "
        assert re.search(row, result.stdout, flags=re.MULTILINE), result.stdout
    assert re.search(r"int8-cpu: .*QLinearConv \d", result.stdout), result.stdout


def test_the_int8_example_compares_the_methods(article_bundle: Path, tmp_path: Path) -> None:
    for position, value in enumerate((30, 120, 220)):
        ramp = np.linspace(0, value, 64, dtype=np.uint8)
        Image.fromarray(np.broadcast_to(ramp[:, None, None], (64, 64, 3)).copy()).save(tmp_path / f"{position}.png")
    command = [
        sys.executable,
        ROOT / "examples" / "int8_methods.py",
        article_bundle,
        "--images",
        tmp_path,
        "--samples",
        "2",
        "--seeds",
        "1",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stderr  # one image that judges may say either
    for method in ("fp32", "minmax", "percentile", "mse", "entropy", "onnxruntime MinMax"):
        assert re.search(rf"^{method} ", result.stdout, flags=re.MULTILINE), method
