"""The documentation's site: its pages, what is written from the code, and that it builds without a warning."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from tests.pages import COMMANDS, ROOT

SITE = ROOT / "docs" / "site"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A function that imports one of the modules that write the site."""
    monkeypatch.syspath_prepend(str(SITE))
    ours = [file.stem for file in SITE.glob("*.py")]

    def load(name: str) -> ModuleType:
        if name in ("fields", "roles") and find_spec("griffe") is None:
            pytest.skip("mkdocstrings is not installed: pip install '.[docs]'")
        return importlib.import_module(name)

    yield load
    for name in ours:
        sys.modules.pop(name, None)


def test_the_navigation_names_pages_that_exist() -> None:
    """Pages that it does not name are found by the build, below."""
    named = set(re.findall(r"[\w/-]+\.md", CONFIG[CONFIG.index("\nnav:") :].replace("hooks.py", "")))
    hooks = (SITE / "hooks.py").read_text(encoding="utf-8")
    for name in named:
        assert (ROOT / "docs" / name).is_file() or f'"{name}"' in hooks, name


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Text:\n- one\n- two", "Text:\n\n- one\n- two"),
        ("- one\n  - inner\n- two", "- one\n\n    - inner\n\n- two"),
        ("- one\n  goes on\n- two", "- one\n  goes on\n- two"),
        ("- one\n\n  a paragraph of it\n\nText", "- one\n\n    a paragraph of it\n\nText"),
        ("1. one\n2. two\n   - inner", "1. one\n2. two\n\n    - inner"),
        ("a * b\n-1 is a number", "a * b\n-1 is a number"),
    ],
)
def test_lists_are_read_as_on_github(module: object, given: str, wanted: str) -> None:
    assert module("lists").as_python_markdown(given) == wanted  # type: ignore[operator]


def test_the_page_of_commands_has_every_option_of_every_command(module: object) -> None:
    commands = module("commands")  # type: ignore[operator]
    page = commands.page()
    found = list(commands.parsers())
    assert {*COMMANDS, "mtl-bench compare", "mtl-bench report", "mtl-calibrate compare"} <= {one.prog for one in found}
    assert len({one.prog for one in found}) == len(found)
    for one in found:
        section = page.split(f"\n## {one.prog}\n")[1].split("\n## ")[0]
        for action in one._actions:
            if not {"--help", "--version", "--print-completion"} & set(action.option_strings):
                assert f"`{commands.called(action)}`\n\n:   " in section, action


def test_the_pages_of_fields_have_every_field(module: object) -> None:
    from mtl_deploy.bench.results.schema import assembled
    from mtl_deploy.runtime.bundle.kinds.registry import KINDS
    from mtl_deploy.runtime.bundle.schema import MANIFEST
    from mtl_deploy.runtime.bundle.tasks import Task

    pages = module("fields")  # type: ignore[operator]
    task_file = pages.task_file_page()
    for each in fields(Task):
        if each.name != "options":
            (row,) = re.findall(
                rf"^\| `{each.name}` \| .* \| .* \| (.*) \|$", task_file.split("## regression")[0], re.MULTILINE
            )
            assert len(row) > 5, each.name  # it says what it means
    assert all(f"## {kind}\n" in task_file for kind in KINDS)
    own = re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", task_file.partition("## regression")[2], re.MULTILINE)
    assert len(own) > 30
    assert [name for name, meaning in own if len(meaning) <= 5] == []
    assert "--task 'NAME=regression:years'" in task_file  # as the command wants it
    manifest, result = pages.manifest_page(), pages.result_page()
    assert all(f"| `{name}` |" in manifest for name in MANIFEST["properties"])
    assert "| `artifacts[].sha256` | yes |" in manifest
    assert all(f"| `{name}` |" in result for name in assembled()["properties"])
    assert json.loads(pages.manifest_schema())["properties"]["signature"]["required"]


def test_an_item_after_an_inner_list_belongs_to_the_outer_one(module: object) -> None:
    """As the site's own Markdown reads it: without an empty line it takes such items into the inner list."""
    markdown = pytest.importorskip("markdown", reason="mkdocs is not installed: pip install '.[docs]'")
    given = "- a\n  - b\n    - c\n      goes on\n    - d\n  - e\n- f\n\nText"
    html = markdown.markdown(module("lists").as_python_markdown(given), extensions=["sane_lists"])  # type: ignore[operator]
    depths, deep = {}, 0
    for found in re.finditer(r"<(/?)ul>|\b([a-f])\b", html):
        if found[2]:
            depths[found[2]] = deep
        else:
            deep += -1 if found[1] else 1
    assert depths == {"a": 1, "b": 2, "c": 3, "d": 3, "e": 2, "f": 1}


@pytest.mark.parametrize(
    ("link", "source", "place", "wanted"),
    [
        ("[a](docs/int8.md#budgets)", "README.md", "index.md", "[a](int8.md#budgets)"),
        ("[a](../SECURITY.md)", "docs/security.md", "security.md", "[a](security-policy.md)"),
        ("[a](../scenes/README.md)", "examples/detection/README.md", "examples/detection.md", "[a](scenes.md)"),
        ("[a](../tests/attacks)", "docs/reliability.md", "reliability.md", "a"),
        ("[a](https://example.org/x.md)", "README.md", "index.md", "[a](https://example.org/x.md)"),
        ("[a](#part)", "README.md", "index.md", "[a](#part)"),
        ("![a](docs/pictures/x.png)", "README.md", "index.md", "![a](pictures/x.png)"),
    ],
)
def test_links_lead_to_the_sites_pages(module: object, link: str, source: str, place: str, wanted: str) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install '.[docs]'")
    assert module("hooks").linked(link, source, place) == wanted  # type: ignore[operator]


@pytest.mark.extended
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    reached = (tmp_path / "index.html").read_text(encoding="utf-8")
    for source in (ROOT / "docs").rglob("*.md"):
        place = source.relative_to(ROOT / "docs").with_suffix(".html")
        assert tmp_path / place in pages
        assert re.search(rf"href=\"?{re.escape(str(place))}", reached), place
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\s\">]*)", text)
        fetched += [
            href
            for rel, href in re.findall(r"<link rel=\"?([\w-]+)\"? href=\"?(https?:[^\s\">]*)", text)
            if rel != "canonical"
        ]
        assert fetched == [], page.name
    python = (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="mtl_deploy.runtime.load"' in python
    assert 'id="mtl_deploy.runtime.Model.predict"' in python
    for name in ("manifest", "result"):
        assert json.loads((tmp_path / "reference" / f"{name}.schema.json").read_text(encoding="utf-8"))["properties"]
