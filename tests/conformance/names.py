"""Print what a TensorRT module has, as JSON: names, classes with their members and docstrings, enums. Runs in a process of its own.

python names.py MODULE '["library", ...]'
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from typing import Any


def load(name: str, libraries: str) -> Any:
    """Import a module once its libraries are loaded."""
    for library in json.loads(libraries):
        ctypes.CDLL(library)
    return importlib.import_module(name)


def describe(module: Any) -> dict[str, Any]:
    """Return the names of the module; of a class, an enum's members, or attributes with their docstrings."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        entry: dict[str, Any] = {"doc": _doc(value)}
        if isinstance(value, type):
            entry["members"] = {each: int(member) for each, member in getattr(value, "__members__", {}).items()}
            entry["attributes"] = {
                each: _doc(getattr(value, each, None)) for each in dir(value) if not each.startswith("__")
            }
        found[name] = entry
    return found


def _doc(value: Any) -> str:
    return value.__doc__ if isinstance(getattr(value, "__doc__", None), str) else ""


if __name__ == "__main__":
    print(json.dumps(describe(load(*sys.argv[1:3]))))
