"""Pages of fields, from the schemas and declarations that readers go by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import griffe
from roles import without_roles

from mtl_deploy.bench.results.schema import assembled
from mtl_deploy.runtime.bundle.kinds.registry import KINDS, task_kind
from mtl_deploy.runtime.bundle.schema import ENGINE, MANIFEST, SIGNATURE, TASK
from mtl_deploy.runtime.bundle.tasks import Task

Schema = Mapping[str, Any]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def form(schema: Schema) -> str:
    """Return what a value is, in a few words: ``integer, 1 to 16384``."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(form(one) for one in schema[key])
    kind = schema.get("type", "any value")
    name = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if name == "array":
        prefix = schema.get("prefixItems")
        inner = ", ".join(form(one) for one in prefix) if prefix else form(schema.get("items", {}))
        return f"list{_count(schema)} of {inner}"
    if name == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        name = f"table of {form(schema['additionalProperties'])}"
    bounds = " ".join(_bounds(schema))
    return f"{name} ({bounds})" if bounds else name


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _bounds(schema: Schema) -> Iterator[str]:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if low is not None and high is not None:
        yield (
            f"{_number(low)} to {_number(high)}" if "minimum" in schema else f"above {_number(low)}, to {_number(high)}"
        )
    elif low is not None:
        yield f"{_number(low)} or more" if "minimum" in schema else f"above {_number(low)}"
    elif high is not None:
        yield f"at most {_number(high)}"


def _count(schema: Schema) -> str:
    """Return how many entries a list has, in brackets, or nothing."""
    few, many = schema.get("minItems"), schema.get("maxItems")
    if few is None and many is None:
        return ""
    if few == many:
        return f" ({few})"
    return f" ({few or 0} to {many})" if many is not None else f" ({few} or more)"


def rows(schema: Schema, prefix: str = "") -> Iterator[tuple[str, bool, str, str]]:
    """Yield each field of an object and of the objects in it: path, whether it is required, form and meaning."""
    required = set(schema.get("required", ()))
    for name, value in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, name in required, form(value), value.get("description", "")
        for inner, mark in _inside(value):
            yield from rows(inner, f"{path}{mark}.")


def _inside(schema: Schema) -> Iterator[tuple[Schema, str]]:
    """Yield the objects in a value, with what their path gets: ``[]`` in a list, ``.*`` in a table."""
    if schema.get("properties"):
        yield schema, ""
    if isinstance(schema.get("items"), Mapping):
        yield from ((inner, f"[]{mark}") for inner, mark in _inside(schema["items"]))
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from ((inner, f".*{mark}") for inner, mark in _inside(schema["additionalProperties"]))
    for key in ("anyOf", "oneOf"):
        for one in schema.get(key, ()):
            yield from _inside(one)


def table(schema: Schema) -> str:
    """Return the table of an object's fields."""
    found = list(rows(schema))
    told = any(meaning for *_, meaning in found)
    lines = ["| field | required | form |" + (" meaning |" if told else ""), "|---|---|---|" + ("---|" if told else "")]
    for path, required, shape, meaning in found:
        line = f"| `{path}` | {'yes' if required else ''} | {_cell(shape)} |"
        lines.append(line + (f" {_cell(meaning)} |" if told else ""))
    return "\n".join(lines) + "\n"


def _part(title: str, text: str, schema: Schema) -> str:
    return f"## {title}\n\n{text}\n\n{table(schema)}"


def manifest_page() -> str:
    """Return the page of ``manifest.json``."""
    introduction = """\
# manifest.json

These are the fields that readers check, generated from the schema that they use; [manifest.schema.json](manifest.schema.json)
is the same for programs (JSON Schema, draft 2020-12). [The bundle format](../bundle.md) says what the fields mean. Readers ignore
fields that they do not know, and fields that are not required may be missing in bundles of earlier releases.
"""
    return "\n".join(
        (
            introduction,
            _part("The manifest", "The file's outermost object. `[]` stands for each entry of a list.", MANIFEST),
            _part("signature", "Tasks, images and form of the outputs; also in each graph's metadata.", SIGNATURE),
            _part("details of an engine", "What an engine's entry in `artifacts` holds under `details`.", ENGINE),
        )
    )


def manifest_schema() -> str:
    """Return the schema of ``manifest.json`` with the signature's put in."""
    whole = {**MANIFEST, "properties": {**MANIFEST["properties"], "signature": SIGNATURE}}
    return json.dumps(whole, indent=2) + "\n"


def result_schema() -> str:
    """Return the schema of what ``mtl-bench --json`` writes."""
    return json.dumps(assembled(), indent=2, ensure_ascii=False) + "\n"


def result_page() -> str:
    """Return the page of what ``mtl-bench --json`` writes."""
    schema = assembled()
    introduction = f"""\
# Results of mtl-bench

This is what `mtl-bench --json` writes; [result.schema.json](result.schema.json) is the same for programs (JSON Schema, draft
2020-12).
{schema["description"].replace("docs/benchmarking.md", "[Benchmarking](../benchmarking.md)")}
"""
    parts = [
        introduction,
        _part("The result", "The file's outermost object. `[]` stands for each entry of a list.", schema),
    ]
    for name, inner in schema["$defs"].items():
        meaning = inner.get("description", "")
        if inner.get("properties"):
            parts.append(_part(name, meaning, inner))
        else:
            parts.append(f"## {name}\n\n{meaning or ''}\n\nForm: {form(inner)}\n")
    return "\n".join(parts)


def task_file_page() -> str:
    """Return the page of the task file: fields of all kinds, then those of each kind."""
    told = {**_meanings(), "kind": "what the output means: one of the kinds below"}
    lines = [
        "# The task file",
        "",
        "`mtl-export --tasks FILE` reads a TOML file with one `[[task]]` table per task, in the order of the outputs if",
        "a task does not name its `output`. [Checkpoints](../checkpoints.md#tasks) explains how a task finds its output, and",
        "[kinds of tasks](../kinds.md) what each kind does. The manifest has the same fields.",
        "",
        "## Fields of every kind",
        "",
        "| field | form | default | meaning |",
        "|---|---|---|---|",
    ]
    for each in fields(Task):
        if each.name == "options":
            continue
        default = "required" if each.default is MISSING else _default(each.default)
        lines.append(
            f"| `{each.name}` | {_cell(form(TASK['properties'][each.name]))} | {default} | {_cell(told.get(each.name, ''))} |"
        )
    lines += ["", "Every kind takes `name`, `kind`, `output` and `columns`, and the fields listed for it below.", ""]
    for name in KINDS:
        kind = task_kind(name)
        takes = ", ".join(f"`{field}`" for field in sorted(kind.takes)) or "no other field"
        lines += [
            f"## {name}",
            "",
            f"Takes {takes}.",
            "",
            "As an option:",
            "",
            "```text",
            f"--task 'NAME={kind.example}'",
            "```",
            "",
        ]
        if kind.options is None:
            continue
        lines += ["| additional field | form | default | meaning |", "|---|---|---|---|"]
        for own in fields(kind.options):
            default = "required" if own.default is MISSING else _default(own.default)
            shape, meaning = form(own.metadata["schema"]), own.metadata["doc"]
            lines.append(f"| `{own.name}` | {_cell(shape)} | {default} | {_cell(meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _default(value: object) -> str:
    return "not given" if value is None else f"`{json.dumps(value)}`"


def _meanings() -> dict[str, str]:
    """Return by name what the fields of :class:`Task` mean, from its docstring."""
    docstring = griffe.Docstring(without_roles(str(Task.__doc__)), lineno=1)
    return {
        item.name: item.description
        for section in griffe.parse_google(docstring, warnings=False)
        if section.kind is griffe.DocstringSectionKind.attributes
        for item in section.value
    }
