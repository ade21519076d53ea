"""The floor plan: what docs/design.md draws is what stands there, and no folder grows into a hall again."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("runtime", "calibration", "export", "bench")
MOST = 15  # modules in a folder, its __init__ among them
FOLDERS = sorted(file.parent.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("__init__.py"))


def drawn() -> set[str]:
    """Return the folders in the tree of docs/design.md, such as ``runtime/files``."""
    page = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(runtime/.*?)```", page, re.DOTALL)
    assert tree is not None
    found, room = set(), ""
    for line in tree[1].splitlines():
        if name := re.match(r"(\w+)/", line):
            room = name[1]
            found.add(room)
        elif name := re.match(r"  (\w+)/", line):
            found.add(f"{room}/{name[1]}")
    return found


def test_the_page_draws_every_folder_and_no_other() -> None:
    folders = {str(folder) for folder in FOLDERS if len(folder.parts) <= 2}
    assert drawn() == folders | {"tests"}


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_a_folder_says_what_it_is_for_and_can_be_overlooked(folder: Path) -> None:
    purpose = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")))
    assert purpose is not None
    assert len(purpose) > 30
    assert len(list((ROOT / folder).glob("*.py"))) <= MOST


def test_tests_stand_where_the_modules_stand() -> None:
    folders = {folder for room in ROOMS for folder in (ROOT / "tests" / room).rglob("*") if folder.is_dir()}
    folders = {folder.relative_to(ROOT / "tests") for folder in folders if folder.name != "__pycache__"}
    assert folders
    assert folders <= set(FOLDERS)
