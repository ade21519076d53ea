"""What MkDocs does not do by itself: pages from elsewhere in the repository, pages from the code, and links as GitHub has them."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import commands
import fields
import lists

ROOT = Path(__file__).parents[2]
BROUGHT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "examples/digits/README.md": "examples/digits.md",
    "examples/scenes/README.md": "examples/scenes.md",
    "examples/detection/README.md": "examples/detection.md",
}
"""Pages that stand outside docs/: their path in the repository, and on the site."""

WRITTEN = {
    "reference/commands.md": commands.page,
    "reference/task-file.md": fields.task_file_page,
    "reference/manifest.md": fields.manifest_page,
    "reference/manifest.schema.json": fields.manifest_schema,
    "reference/result.md": fields.result_page,
    "reference/result.schema.json": fields.result_schema,
}
"""What is written from the code: path on the site, and the function that returns the content."""

_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"(!\[[^\]]*\])\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let pages that the navigation does not name yet follow under How-to, so that no page is out of reach."""
    assert config.nav is not None
    named = set(_named(config.nav))
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    next(part["How-to"] for part in config.nav if "How-to" in part).extend(page for page in pages if page not in named)
    return config


def _named(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, (dict, list)):
        for inner in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(inner)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in docs/."""
    for source, place in BROUGHT.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for place, write in WRITTEN.items():
        files.append(File.generated(config, place, content=write()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs's names
    """Let links lead to pages of the site wherever their source stands, and lists read as GitHub reads them."""
    place = page.file.src_uri
    source = {site: repository for repository, site in BROUGHT.items()}.get(place, f"docs/{place}")
    parts = _FENCE.split(markdown)  # code stays as it is
    parts[::2] = [lists.as_python_markdown(linked(part, source, place)) for part in parts[::2]]
    return "".join(parts)


def linked(markdown: str, source: str, place: str) -> str:
    """Return Markdown whose links lead to the site.

    A link to a file that is no page keeps its text alone: the site does not know where the repository is published.

    Args:
        markdown: of one page.
        source: the page's path in the repository.
        place: its path on the site.
    """

    def there(target: str) -> str | None:
        path, hash_, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return target
        repository = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if repository == "bench/result.schema.json":
            site = "reference/result.schema.json"
        elif repository.startswith("docs/"):
            site = repository.removeprefix("docs/")
        elif repository in BROUGHT:
            site = BROUGHT[repository]
        else:
            return None
        return posixpath.relpath(site, posixpath.dirname(place) or ".") + hash_ + anchor

    def link(match: re.Match[str]) -> str:
        target = there(match[2])
        return match[1] if target is None else f"[{match[1]}]({target})"

    def picture(match: re.Match[str]) -> str:
        return f"{match[1]}({there(match[2]) or match[2]})"

    return _PICTURE.sub(picture, _LINK.sub(link, markdown))
