"""The upper part of an HTML page as a picture, such as the README's: drawn by Chromium without a window.

mtl-bench model.mtl --report report.html
python examples/page_picture.py report.html report.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="960x720", metavar="WIDTHxHEIGHT", help="pixels (default: 960x720)")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(browser, arguments.page, arguments.picture, arguments.size)
    print(arguments.picture)


def draw(browser: str, page: Path, picture: Path, size: str) -> None:
    """Let a browser draw a page of this computer into a PNG file."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        options += [f"--window-size={size.replace('x', ',')}", f"--screenshot={picture.resolve()}"]
        done = subprocess.run([browser, *options, page.resolve().as_uri()], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not picture.is_file():
        raise SystemExit(f"{browser} drew nothing: {done.stderr[-500:]}")


if __name__ == "__main__":
    main()
