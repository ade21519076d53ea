"""The tutorials, from the first block to the last, each in the folder where the one before it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks, commands_on_path

FOLDER = ROOT / "docs" / "tutorials"
ELSEWHERE = {
    "in a checkout": "tests/test_readme_commands.py installs a clone",
    "on the device": "a GPU, and TensorRT's own builder",
    "with a camera": "a camera and a screen",
}
"""Titles of blocks that do not run here, and what they need or who runs them."""
RTX = "with tensorrt-rtx"
SHORTER = {"--recipe ci": "--quick --duration 1"}
"""The recipe measures for as long as the machine is noisy; tests/bench/test_recipe.py runs it."""
OPEN = {"mtl-bench compare": (0, 1, 3), "--max-drop": (0, 3)}
"""Commands that judge, and the exit codes with which they have done so: a busy machine decides otherwise than a quiet one."""


def follow(name: str, folder: Path, environment: dict[str, str]) -> int:
    """Do what a page says in a folder: write its files, run its code. Return how many blocks ran."""
    ran = 0
    for block in blocks(FOLDER / name):
        if block.title in ELSEWHERE or (block.title == RTX and not _has_rtx()):
            continue
        code = block.code
        for words, fewer in SHORTER.items():
            code = code.replace(words, fewer)
        if block.language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", code]
        elif block.language == "python" and not block.title:
            command = [sys.executable, "-c", block.code]
        else:
            assert block.title, f"{name}: a block of {block.language!r} without the name of its file"
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.code, encoding="utf-8")
            continue
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        fine = next((codes for words, codes in OPEN.items() if words in code), (0,))
        assert done.returncode in fine, f"{name}:\n{block.code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    return ran


def _has_rtx() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorrt_rtx") is not None


@pytest.mark.extended
def test_the_articles_network_is_exported_compared_measured_and_built(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = commands_on_path(tmp_path / "bin")
    assert follow("article.md", folder, environment) >= 6
    assert (folder / "faces.html").is_file()
    assert not _has_rtx() or (folder / "faces.mtl" / "fp16.rtx.trt").is_file()


@pytest.mark.extended
def test_a_network_is_trained_quantized_watches_a_video_and_passes_its_gate(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = commands_on_path(tmp_path / "bin")
    assert follow("own-network.md", folder, environment) >= 6
    assert follow("camera.md", folder, environment) >= 4
    assert (folder / "street-predicted.mp4").is_file()
    assert follow("ci.md", folder, environment) >= 4
    assert (folder / "compared.json").is_file()


def test_every_block_of_a_tutorial_is_run_or_says_where() -> None:
    titles = {block.title for page in FOLDER.glob("*.md") for block in blocks(page) if block.language == "sh"}
    assert titles - {""} == {*ELSEWHERE, RTX}


def test_the_workflow_of_the_gate_runs_what_the_page_ran() -> None:
    page = list(blocks(FOLDER / "ci.md"))
    (workflow,) = (block.code for block in page if block.language == "yaml")
    ran = [line for block in page if block.language == "sh" for line in block.code.splitlines()]
    for line in ran:
        if line.startswith(("mtl-export", "mtl-calibrate", "python")):
            assert line in workflow, line
