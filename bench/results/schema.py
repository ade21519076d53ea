"""The published JSON Schema of a result, put together from the core's and the sections' own.

``python -m mtl_deploy.bench.results.schema`` writes ``bench/result.schema.json``; run it where one of its parts has changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchSection

PUBLISHED = Path(__file__).parents[1] / "result.schema.json"
_WIDTH = 120
_CORE = Path(__file__).with_name("core.schema.json")


def assembled() -> dict[str, Any]:
    """Return the schema of a result with all sections of the registry; a section that was not measured is null."""
    schema: dict[str, Any] = json.loads(_CORE.read_text(encoding="utf-8"))
    for section in registry.SECTIONS:
        owner = schema["$defs"]["batch"] if isinstance(section, BatchSection) else schema
        *above, last = section.place
        for key in above:
            if key not in owner["properties"]:
                _add(owner, key, {"type": "object", "additionalProperties": False, "required": [], "properties": {}})
            owner = owner["properties"][key]
        _add(owner, last, {"anyOf": [{"$ref": f"#/$defs/{section.key}"}, {"type": "null"}]})
        schema["$defs"][section.key] = section.schema()
    return schema


def _add(owner: dict[str, Any], key: str, schema: dict[str, Any]) -> None:
    owner["properties"][key] = schema
    owner["required"].append(key)


def _written(value: Any, indent: int = 0, before: int = 0) -> str:
    """Return JSON that is broken into lines only where one would be too long."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or indent + before + len(line) <= _WIDTH:
        return line
    names = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    inner = value.values() if isinstance(value, dict) else value
    space = " " * (indent + 2)
    lines = [space + name + _written(one, indent + 2, len(name)) for name, one in zip(names, inner, strict=True)]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return opened + "\n" + ",\n".join(lines) + "\n" + " " * indent + closed


if __name__ == "__main__":
    PUBLISHED.write_text(_written(assembled()) + "\n", encoding="utf-8")
