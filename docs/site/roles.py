"""Docstrings as Markdown: Sphinx's roles, such as ``:class:`~package.Name```, become the name in code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|data|func|meth|mod|attr|exc):`(~?)([\w.]+)`")


def without_roles(text: str) -> str:
    """Return a docstring without roles; ``~`` keeps the last part of the name alone, as in Sphinx."""
    return _ROLE.sub(lambda match: f"`{match[2].rpartition('.')[2] if match[1] else match[2]}`", text)


class Roles(griffe.Extension):
    """Griffe's hook for each object that has a docstring."""

    def on_instance(self, *, obj: griffe.Object, **rest: Any) -> None:  # noqa: ARG002 - Griffe's signature
        """Rewrite the object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
