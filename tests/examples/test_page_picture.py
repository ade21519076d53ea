"""The README's picture is drawn from a page by a browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "page_picture.py"
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.mark.extended
def test_a_page_becomes_a_picture_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium is installed")
    (tmp_path / "page.html").write_text("<body style='margin:0; background:#0000ff'></body>", encoding="utf-8")
    command = [sys.executable, EXAMPLE, tmp_path / "page.html", tmp_path / "page.png", "--size", "640x480"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (640, 480)
        assert picture.convert("RGB").getpixel((320, 240)) == (0, 0, 255)


def test_without_a_browser_it_says_which_ones_it_looked_for(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE, tmp_path / "page.html", tmp_path / "page.png"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "chromium" in done.stderr


def test_the_readmes_picture_is_small_enough_for_a_page() -> None:
    with Image.open(PICTURE) as picture:
        assert picture.width >= 700
    assert PICTURE.stat().st_size < 300_000
