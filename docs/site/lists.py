"""Lists as GitHub reads them (CommonMark), written as Python-Markdown reads them.

Python-Markdown needs an empty line before a list and after an inner one, and four spaces before what belongs to an item. CommonMark
needs neither: what belongs to an item is aligned with its text.
"""

from __future__ import annotations

import re

_ITEM = re.compile(r"^( *)([-*+]|\d{1,3}[.)])( +)(?=\S)")
_STEP = 4


def as_python_markdown(markdown: str) -> str:
    """Return the same text with empty lines around lists and items indented by four spaces per level; without code fences in it."""
    lines: list[str] = []
    open_items: list[int] = []  # the column at which the text of each open item stands
    for line in markdown.split("\n"):
        if not line.strip():
            lines.append(line)
            continue
        indent = len(line) - len(line.lstrip(" "))
        item = _ITEM.match(line)
        after_gap = bool(lines) and not lines[-1].strip()
        if item is None and not after_gap and open_items:  # goes on with the paragraph above
            lines.append(line)
            continue
        inside = [column for column in open_items if column <= indent]
        begins = item is not None and len(inside) == len(open_items)  # a list, in an item or outside of one
        ends = item is not None and len(inside) < len(open_items) - 1  # an inner list, before this item of an outer one
        open_items = inside
        deep = _STEP * len(open_items)
        beyond = indent - (open_items[-1] if open_items else 0)
        if item is None:
            lines.append(" " * (deep + beyond) + line.lstrip(" "))
            continue
        if (begins or ends) and lines and lines[-1].strip():
            lines.append("")
        open_items = [*open_items, len(item[0])]
        lines.append(" " * deep + item[2] + " " + line[len(item[0]) :])
    return "\n".join(lines)
